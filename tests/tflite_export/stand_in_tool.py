"""A stand-in for `benchmark_model`, pushed to the stand-in phone. It may import nothing of here.

It prints what TOOL.txt beside the phone's folders says, with the model's size as the time, and does
what the other files there ask for.
"""

import os
import pathlib
import signal
import sys
import time

root = pathlib.Path(__file__).resolve().parents[4]
flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
with (root / "calls").open("a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\n")
if (root / "sleep").exists():
    time.sleep(60)
if (root / "signal").exists():
    os.kill(os.getpid(), getattr(signal, (root / "signal").read_text()))
status = int((root / "status").read_text()) if (root / "status").exists() else 0
text = (root / "TOOL.txt").read_text()
size = os.path.getsize(flags["graph"])
print(text.replace("@TIME@", str(size)).replace("@THREADS@", flags["num_threads"]))
if flags.get("report_peak_memory_footprint") == "true":
    print("INFO: Overall peak memory footprint (MB) via periodic monitoring: 2.5")
if "result_file_path" in flags and (root / "result.pb").exists():
    pathlib.Path(flags["result_file_path"]).write_bytes((root / "result.pb").read_bytes())
sys.exit(status)
