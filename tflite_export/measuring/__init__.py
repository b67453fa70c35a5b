"""What `kd-benchmark` is made of: one way to measure, one device a file.

- `result`: the schema that all devices share, and its JSON.
- `engine`: models in turn, A B A B, on any device.
- `host`: this machine; `worker` is its child process.
- `table` and `page`: for people; `published`: what others reported.
"""
