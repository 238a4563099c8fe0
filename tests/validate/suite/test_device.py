"""What is said of a device: a CPU's block, and a GPU's from stand-ins for the driver."""

import subprocess
import sys
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
import torch

from kvplan.validate.suite import device as module
from kvplan.validate.suite.device import State, describe, parse_smi, read_state

UUID = "5f1c0000-0000-0000-0000-000000000000"


def test_a_cpu_has_a_name_and_no_clocks():
    block = describe("cpu")
    assert block.kind == "cpu"
    assert block.name
    assert block.state == State() == read_state("cpu")
    assert (block.num_sms, block.l2_bytes, block.driver, block.compute_capability) == (None, None, None, None)
    assert block.torch == torch.__version__
    assert block.python.startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")


def test_the_date_is_now_and_says_its_zone():
    date = datetime.fromisoformat(describe("cpu").date)
    assert date.utcoffset() == timedelta(0)
    assert abs(datetime.now(timezone.utc) - date) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            "580.159.03, 1980, 3201, 41, 121.53\n",
            ("580.159.03", State(1980.0, 3201.0, 41.0, 121.53, source="nvidia-smi")),
        ),
        (
            "580.159.03, [N/A], 3201, [Not Supported], [N/A]",
            ("580.159.03", State(None, 3201.0, None, None, source="nvidia-smi")),
        ),
        ("[N/A], 1, 2, 3, 4", (None, State(1.0, 2.0, 3.0, 4.0, source="nvidia-smi"))),
        ("No devices were found", None),
        ("", None),
    ],
)
def test_a_line_of_nvidia_smi(answer, expected):
    assert parse_smi(answer) == expected


class FakeNvml:
    """As much of pynvml as is read; an old device has no power meter."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self, driver="580.159.03", milliwatts=None):
        self.driver, self.milliwatts = driver, milliwatts
        self.open = 0

    def nvmlInit(self):
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid != f"GPU-{UUID}":
            raise RuntimeError("Not Found")
        return "handle"

    def nvmlSystemGetDriverVersion(self):
        return self.driver

    def nvmlDeviceGetClockInfo(self, handle, clock):
        return {self.NVML_CLOCK_SM: 1980, self.NVML_CLOCK_MEM: 3201}[clock]

    def nvmlDeviceGetTemperature(self, handle, sensor):
        return 41

    def nvmlDeviceGetPowerUsage(self, handle):
        if self.milliwatts is None:
            raise RuntimeError("Not Supported")
        return self.milliwatts


@pytest.fixture
def gpu(monkeypatch):
    properties = SimpleNamespace(
        name="NVIDIA H200",
        major=9,
        minor=0,
        multi_processor_count=132,
        L2_cache_size=60 << 20,
        total_memory=140 << 30,
        uuid=UUID,
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    return properties


@pytest.mark.parametrize("driver", ["580.159.03", b"580.159.03"], ids=["text", "bytes of an old pynvml"])
@pytest.mark.usefixtures("gpu")
def test_a_gpu_as_pynvml_sees_it(driver, monkeypatch):
    nvml = FakeNvml(driver)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    block = describe("cuda:0")
    assert (block.kind, block.name, block.compute_capability, block.num_sms) == ("cuda", "NVIDIA H200", "9.0", 132)
    assert (block.l2_bytes, block.memory_bytes) == (60 << 20, 140 << 30)
    assert (block.driver, block.runtime) == ("580.159.03", "13.0")
    assert block.state == State(1980.0, 3201.0, 41.0, None, source="pynvml")
    assert nvml.open == 0


@pytest.mark.usefixtures("gpu")
def test_power_is_read_in_milliwatts(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(milliwatts=121_530))
    assert read_state("cuda:0").power_watts == pytest.approx(121.53)


@pytest.mark.parametrize("pynvml", [None, FakeNvml()], ids=["not installed", "knows no such device"])
def test_without_pynvml_nvidia_smi_is_asked(pynvml, gpu, monkeypatch):
    gpu.uuid = "another"
    monkeypatch.setitem(sys.modules, "pynvml", pynvml)
    asked = []

    def run(command, **options):
        asked.append(command)
        return SimpleNamespace(stdout="580.159.03, 345, 3201, 30, 75.1\n")

    monkeypatch.setattr(module.subprocess, "run", run)
    assert read_state("cuda:0") == State(345.0, 3201.0, 30.0, 75.1, source="nvidia-smi")
    assert "--id=GPU-another" in asked[0]
    assert len(asked[0]) == 4
    assert asked[0][2].startswith("--query-gpu=")  # it reads, and sets nothing


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("nvidia-smi"),
        subprocess.CalledProcessError(9, "nvidia-smi"),
        subprocess.TimeoutExpired("x", 30),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.usefixtures("gpu")
def test_a_driver_that_nobody_reaches_is_unknown(error, monkeypatch):
    def run(*args, **options):
        raise error

    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(module.subprocess, "run", run)
    block = describe("cuda:0")
    assert block.driver is None
    assert block.state == State()
    assert block.name == "NVIDIA H200"
