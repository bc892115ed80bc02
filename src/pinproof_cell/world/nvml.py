"""NVIDIA's management library through ctypes: the driver's version, and gauges around a round.

Optional everywhere: where the library, a device or a gauge is absent the answer is None, since
a container or a driver may withhold any of them without harm to the measurement.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

#: Bits of nvmlDeviceGetCurrentClocksThrottleReasons (nvml.h) that a reader should know of.
THROTTLES = {
    0x4: "power-cap",
    0x8: "hw-slowdown",
    0x20: "sw-thermal",
    0x40: "hw-thermal",
    0x80: "power-brake",
}
#: A round under one of these was not measured at the clock of the others.
DISQUALIFYING = 0x8 | 0x40 | 0x80

_SM, _MEMORY = 1, 2  # nvmlClockType_t


@dataclass(frozen=True, kw_only=True)
class Gauges:
    """One reading: clocks in MHz, power in W, temperature in C, bits of `THROTTLES`."""

    sm_clock: int | None
    memory_clock: int | None
    power: float | None
    temperature: int | None
    throttle: int | None

    @property
    def disqualified(self) -> bool:
        """True where the hardware held its clock down."""
        return bool((self.throttle or 0) & DISQUALIFYING)


class Nvml:
    """One device as the management library sees it."""

    def __init__(self, library: Any, device: ctypes.c_void_p) -> None:
        self._library = library
        self._device = device

    @classmethod
    def open(cls, uuid: str | None = None) -> Nvml | None:
        """Open the device of that UUID, or the only one; None where there is no such thing.

        An index would be wrong: torch renumbers devices, the management library does not.
        """
        library = _library()
        if library is None:
            return None
        device = ctypes.c_void_p()
        if uuid is not None:
            name = uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"
            if library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(device)) == 0:
                return cls(library, device)
        count = ctypes.c_uint()
        alone = library.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0 and count.value == 1
        if alone and library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)) == 0:
            return cls(library, device)
        return None

    def read(self) -> Gauges:
        """Read all gauges now."""
        power = self._number("nvmlDeviceGetPowerUsage")
        return Gauges(
            sm_clock=self._number("nvmlDeviceGetClockInfo", _SM),
            memory_clock=self._number("nvmlDeviceGetClockInfo", _MEMORY),
            power=None if power is None else power / 1000,
            temperature=self._number("nvmlDeviceGetTemperature", 0),
            throttle=self._number("nvmlDeviceGetCurrentClocksThrottleReasons", wide=True),
        )

    def highest_sm_clock(self) -> int | None:
        """Return the highest SM clock that the device allows, in MHz."""
        return self._number("nvmlDeviceGetMaxClockInfo", _SM)

    def highest_bandwidth(self) -> float | None:
        """Return the highest bandwidth of the memory in bytes/s: two transfers per clock."""
        clock = self._number("nvmlDeviceGetMaxClockInfo", _MEMORY)
        width = self._number("nvmlDeviceGetMemoryBusWidth")
        return 2e6 * clock * width / 8 if clock and width else None

    def _number(self, function: str, *arguments: int, wide: bool = False) -> int | None:
        value = ctypes.c_ulonglong() if wide else ctypes.c_uint()
        try:
            failed = getattr(self._library, function)(
                self._device, *map(ctypes.c_uint, arguments), ctypes.byref(value)
            )
        except AttributeError:  # an older library lacks the function
            return None
        return None if failed else value.value


def driver() -> str | None:
    """Return the version of the NVIDIA driver, such as ``"580.95.05"``, or None."""
    library = _library()
    text = ctypes.create_string_buffer(80)
    if library is None or library.nvmlSystemGetDriverVersion(text, ctypes.c_uint(80)) != 0:
        return None
    return text.value.decode(errors="replace")


def _library() -> Any:
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        # Initialising again only counts up, so every caller may.
        return library if library.nvmlInit_v2() == 0 else None
    except (OSError, AttributeError):
        return None
