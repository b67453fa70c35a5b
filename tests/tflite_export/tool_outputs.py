"""What builds of benchmark_model print, by year; the expected figures are beside each."""

from tflite_export.measuring.result import Delegation

CURRENT = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Min num runs: [50]
INFO: Num threads: [1]
INFO: Graph: [/data/local/tmp/m.tflite]
INFO: #threads used for CPU inference: [1]
INFO: Loaded model /data/local/tmp/m.tflite
INFO: Initialized TensorFlow Lite runtime.
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
VERBOSE: Replacing 58 out of 64 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 3 \
partitions for subgraph 0.
VERBOSE: Replacing 1 out of 2 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 \
partitions for subgraph 1.
INFO: The input model file size (MB): 4.2761
INFO: Initialized session in 87.639ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if \
exceeding 150 seconds.
INFO: count=5 first=106436 curr=105929 min=105929 max=106436 avg=106065 std=193 p5=105929 \
median=105948 p95=106436

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if \
exceeding 150 seconds.
INFO: count=50 first=106022 curr=105780 min=105416 max=106528 avg=105784 std=260 p5=105485 \
median=105718 p95=106281

INFO: Inference timings in us: Init: 87639, First inference: 106436, Warmup (avg): 106065, \
Inference (avg): 105784
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only \
APPROXIMATE to the actual memory footprint of the model at runtime.
INFO: Memory footprint delta from the start of the tool (MB): init=14.4414 overall=14.8164
"""
PERCENTILES = {"p5": 105485, "median": 105718, "p95": 106281}
FIGURES = {
    **{"runs": 50, "mean": 105784, "std": 260, "min": 105416, "max": 106528},
    **{"init": 87639, "first": 106436},
}
LOGCAT = "".join(
    f"10-07 12:00:00.000 I/tflite  ( 5395): {line.removeprefix('INFO: ')}\n"
    for line in CURRENT.splitlines()
)
NO_PERCENTILES = "\n".join(line.split(" p5=")[0] for line in CURRENT.splitlines())
NEWER = """\

========================================
 BENCHMARK RESULTS
========================================
Model initialization:  87.64 ms
Warmup (first):        13.50 ms
Warmup (avg):          12.90 ms (5 runs)
Inference (avg):       12.34 ms (50 runs)
Inference (min):       11.00 ms
Inference (max):       15.25 ms
Inference (median):    12.30 ms
Inference (std):       0.50 ms
Inference (p5):        11.20 ms
Inference (p95):       14.00 ms
Throughput:            3.10 MB/s
Fully accelerated:     True
"""
WARMUP = "count=2 first=12 curr=11 min=11 max=12 avg=11.5 std=0\n"
_SAME = {"std": 0, **dict.fromkeys(("mean", "min", "max", "p5", "median", "p95"), 10)}

#: Name -> (text, fields of the reading; None for no reading).
READINGS = {
    "current": (CURRENT, FIGURES | PERCENTILES),
    "logcat": (LOGCAT, FIGURES | PERCENTILES),
    "no INFO": (CURRENT.replace("INFO: ", ""), FIGURES | PERCENTILES),
    "CRLF": (CURRENT.replace("\n", "\r\n"), FIGURES | PERCENTILES),
    "no percentiles": (NO_PERCENTILES, FIGURES),
    "exponent": (
        WARMUP + "count=3 first=3e+06 curr=3e+06 min=2900000 max=3000000 avg=2.95034e+06 std=41000",
        {"runs": 3, "mean": 2950340, "min": 2.9e6, "max": 3e6, "std": 41000, "first": 12},
    ),
    "one": (WARMUP + "count=1 curr=10", {"runs": 1, "first": 12, **_SAME}),
    "all same": (WARMUP + "count=7 curr=10(all same)", {"runs": 7, "first": 12, **_SAME}),
    "warm-up of one": (
        "count=1 curr=14\ncount=7 curr=10(all same)",
        {"runs": 7, "first": 14, **_SAME},
    ),
    "no warm-up": ("count=0\ncount=7 curr=10(all same)", {"runs": 7, "first": 10, **_SAME}),
    "timings alone": (
        "I/tflite  ( 2703): Inference timings in us: Init: 5685, First inference: 18535, "
        "Warmup (avg): 14462.3, Inference (avg): 14575.2",
        {"runs": None, "init": 5685, "first": 18535, "mean": 14575.2},
    ),
    "timings of 2019": (
        "Average inference timings in us: Warmup: 83235, Init: 38467, Inference: 79760.9",
        {"runs": None, "init": 38467, "mean": 79760.9},
    ),
    "newer tool": (
        NEWER,
        {
            **{"runs": 50, "mean": 12340, "min": 11000, "max": 15250, "std": 500, "p5": 11200},
            **{"median": 12300, "p95": 14000, "init": 87640, "first": 13500},
        },
    ),
    "nothing ran": ("count=0\ncount=0", None),
    "died after the warm-up": (CURRENT.split("INFO: count=50")[0], None),
    "warm-up only": (WARMUP, None),
    "empty": ("", None),
    "garbage": ("\x00\xff count= avg=nan count=x median=5 \x1b[0m", None),
    "not finite": (WARMUP + "count=3 avg=inf", None),
    "huge": (WARMUP + "count=3 avg=1e999 min=2", None),
}
MEMORY = {
    "delta": (CURRENT, round(14.8164 * 2**20)),
    "until 2.4": ("Peak memory footprint (MB): init=1.5 overall=3.5", round(3.5 * 2**20)),
    "sampled": (
        CURRENT + "INFO: Overall peak memory footprint (MB) via periodic monitoring: 12.3\n",
        round(12.3 * 2**20),
    ),
    "not told": ("INFO: count=5", None),
    "not measured": ("Overall peak memory footprint (MB) via periodic monitoring: -0.5", None),
}
DELEGATIONS = {
    "part": (CURRENT, {"TfLiteXNNPackDelegate": Delegation(58, 64, 3)}),
    "older": (
        "Replacing 31 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 1 partitions.",
        {"TfLiteGpuDelegateV2": Delegation(31, None, 1)},
    ),
    "none": ("INFO: count=5", {}),
}


def _row(*cells: str) -> str:
    kind, *figures, name = cells
    return "\t" + "\t".join([kind.rjust(24), *(figure.rjust(9) for figure in figures), name]) + "\n"


_REST = ("[%]", "[cdf%]", "[mem KB]", "[times called]", "[Name]")
_COLUMNS = _row("[node type]", "[first]", "[avg ms]", *_REST)
_ROWS = {
    kind: _row(kind, "4.269", mean, "0.107%", "0.107%", "0.000", "1", name)
    for kind, mean, name in (("CONV_2D", "4.250", "[a/b]:0"), ("SOFTMAX", "0.750", "[c]:1"))
}
_INNER = _row("Convolution", "0.010", "2.000", "0.107%", "0.107%", "0.000", "1", "x:0")
_ORDER = "============================== Run Order ==============================\n"
_TOP = "============================== Top by Computation Time ==============================\n"
PROFILE = (
    "INFO: count=5\nProfiling Info for Benchmark Initialization:\n"
    + _ORDER
    + _COLUMNS
    + _INNER
    + "\nNumber of nodes executed: 1\n"
    + "Operator-wise Profiling Info for Regular Benchmark Runs:\n"
    + _ORDER
    + _COLUMNS
    + _ROWS["CONV_2D"]
    + _ROWS["SOFTMAX"]
    + "\n"
    + _TOP
    + _COLUMNS
    + _ROWS["CONV_2D"]
    + "\nNumber of nodes executed: 2\n"
)
INSIDE = PROFILE + "Delegate internal: \n" + _ORDER + _COLUMNS + _INNER + "\n"
OLD_PROFILE = (
    _ORDER
    + _row("[node type]", "[start]", "[first]", "[avg ms]", *_REST)
    + _row("CONV_2D", "0.000", "4.269", "4.250", "0.107%", "0.107%", "0.000", "1", "[a/b]:0")
)
