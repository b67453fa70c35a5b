"""The readers of what the phone's tool prints and writes."""

import dataclasses

import pytest
import tool_outputs
from hypothesis import given, settings
from hypothesis import strategies as st

from tflite_export.errors import ExportError
from tflite_export.measuring import benchmark_proto, benchmark_tool, operator_profile
from tflite_export.measuring.result import Operator, Reading

pytestmark = pytest.mark.any_keras
# A busy machine is no failure; nothing is kept beside the tests.
fuzzed = settings(deadline=None, database=None)


@pytest.mark.parametrize(
    ("text", "fields"), tool_outputs.READINGS.values(), ids=tool_outputs.READINGS
)
def test_readings(text, fields):
    expected = None if fields is None else Reading(**fields)
    assert benchmark_tool.parse(text).reading == expected


@pytest.mark.parametrize(("text", "peak"), tool_outputs.MEMORY.values(), ids=tool_outputs.MEMORY)
def test_memory(text, peak):
    assert benchmark_tool.parse(text).peak_memory_bytes == peak


@pytest.mark.parametrize(
    ("text", "delegations"), tool_outputs.DELEGATIONS.values(), ids=tool_outputs.DELEGATIONS
)
def test_delegations(text, delegations):
    assert benchmark_tool.parse(text).delegations == delegations


def test_refusals():
    output = benchmark_tool.parse(
        "WARN: Unconsumed cmdline flags: --use_gpu=true --x=1\n"
        "INFO: Though GPU delegate is explicitly applied, the model graph will not be executed by "
        "the delegate."
    )
    assert output.unknown_flags == ("--use_gpu=true", "--x=1")
    assert output.refused == ("GPU",)


CONV = Operator("CONV_2D", "[a/b]:0", 4250)
SOFTMAX = Operator("SOFTMAX", "[c]:1", 750)


@pytest.mark.parametrize(
    ("text", "operators"),
    [
        (tool_outputs.PROFILE, (CONV, SOFTMAX)),
        (tool_outputs.PROFILE.replace("\n", "\nI/tflite  ( 5395): "), (CONV, SOFTMAX)),
        (tool_outputs.INSIDE, (CONV, SOFTMAX, Operator("Convolution", "x:0", 2000, inside=True))),
        (tool_outputs.OLD_PROFILE, (CONV,)),
        (tool_outputs.CURRENT, ()),
        ("", ()),
    ],
    ids=["current", "logcat", "with the delegate's", "until 2020", "none", "empty"],
)
def test_profile(text, operators):
    assert operator_profile.parse(text) == operators


@fuzzed
@given(st.integers(0, len(tool_outputs.INSIDE)), st.text(max_size=20))
def test_a_profile_that_is_cut_or_disturbed(place, noise):
    for text in (tool_outputs.INSIDE[:place] + noise, noise + tool_outputs.INSIDE[place:]):
        assert all(row.mean >= 0 and row.type for row in operator_profile.parse(text))


PIECES = st.sampled_from(
    [
        *(
            "count=",
            "avg=",
            "median=",
            "curr=",
            "min=",
            "(all same)",
            "INFO: ",
            "\n",
            " ",
            ":",
            "\r",
        ),
        *("I/tflite  ( 5395): ", "Inference timings in us: ", "Init: ", "Inference (avg): ", " ms"),
        *("Replacing ", " out of ", " node(s) with delegate (X) node, yielding ", " partitions"),
        *("Overall peak memory footprint (MB) via periodic monitoring: ", "1e999", "-1", "nan"),
        *("inf", "0", "5", "2.95e+06", "9" * 5000, "٣", "Unconsumed cmdline flags: "),
    ]
)


@settings(fuzzed, max_examples=50)
@given(st.one_of(st.text(), st.lists(PIECES).map("".join)))
def test_any_text_is_read(text):
    reading = benchmark_tool.parse(text).reading
    if reading is not None:
        values = [v for v in dataclasses.asdict(reading).values() if v is not None]
        assert all(0 <= value < float("inf") for value in values)
        assert reading.mean > 0


@fuzzed
@given(st.integers(0, len(tool_outputs.CURRENT)), st.text(max_size=20))
def test_text_that_is_cut_or_disturbed(place, noise):
    text = tool_outputs.CURRENT[:place] + noise + tool_outputs.CURRENT[place:]
    for damaged in (text, tool_outputs.CURRENT[:place], tool_outputs.CURRENT[place:]):
        benchmark_tool.parse(damaged)


def proto(**latency):
    result = benchmark_proto.result_class()(name="m")
    for name, value in latency.items():
        setattr(result.latency_metrics, name, value)
    return result


def test_result_file():
    result = proto(avg_ms=0.5, median_ms=0.25, p95_ms=1, init_ms=2, first_inference_ms=4)
    result.misc_metrics.num_runs = 50
    result.memory_metrics.peak_mem_mb = 12.5
    figures, peak = benchmark_proto.parse(result.SerializeToString())
    assert figures == {
        **{"mean": 500, "median": 250, "p95": 1000, "init": 2000, "first": 4000, "runs": 50},
    }
    assert peak == 12.5 * 2**20


def test_result_file_by_its_bytes():
    """Written by hand from the .proto: field 2 holds a message, in it field 5 a float of 0.25."""
    content = bytes([2 << 3 | 2, 5, 5 << 3 | 5]) + b"\x00\x00\x80\x3e"
    assert benchmark_proto.parse(content) == ({"median": 250}, None)


def test_result_file_of_nonsense(one_line):
    assert benchmark_proto.parse(proto(avg_ms=float("nan"), min_ms=-1).SerializeToString())[0] == {}
    with pytest.raises(ExportError, match="damaged") as caught:
        benchmark_proto.parse(b"\x12\xff")
    one_line(caught)


@fuzzed
@given(st.binary())
def test_any_bytes_are_read_or_refused(content):
    try:
        figures, peak = benchmark_proto.parse(content)
    except ExportError:
        return
    assert all(0 <= value < float("inf") for name, value in figures.items() if name != "runs")
    assert peak is None or peak > 0
