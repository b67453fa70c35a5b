"""What `kd-benchmark` is made of: one way to measure, one device a file.

- `result`: the schema that all devices share, and its JSON.
- `engine`: models in turn, A B A B, on any device.
- `host`: this machine; `worker` is its child process.
- `android`: a phone through `adb`; `phone` is what it tells of itself, `benchmark_binary` the tool
  that runs there, `benchmark_tool` and `operator_profile` what that prints, `benchmark_proto` what
  it writes; `android_app` runs the tool as an app.
- `arm64`: a phone's instruction set, emulated, to compare outputs; `arm64_setup` fetches it.
- `table` and `page`: for people; `published`: what others reported.
"""
