"""Six STS3215 servos on a pseudo-terminal: ping, read, write, read and write of all at once, as on the real bus."""

import contextlib
import os
import pty
import threading
import tty

EVERYONE = 254
FIRMWARE, MODEL, LOWEST, HIGHEST, TORQUE, GOAL, PRESENT, LOAD, TEMPERATURE, CURRENT = (
    0,
    3,
    9,
    11,
    40,
    42,
    56,
    60,
    63,
    69,
)
STS3215 = 777


class ServoBus:
    """Memory per servo, and a log of what was written: (id, address, bytes)."""

    def __init__(self) -> None:
        self._end, other = pty.openpty()
        tty.setraw(other)
        self.port, self.is_silent = os.ttyname(other), False
        self.memory = {servo: bytearray(256) for servo in range(1, 7)}
        self.log: list[tuple[int, int, bytes]] = []
        for servo, memory in self.memory.items():
            memory[FIRMWARE], memory[FIRMWARE + 1], memory[TEMPERATURE] = 3, 10, 35 + servo
            values = {
                MODEL: STS3215,
                LOWEST: 500,
                HIGHEST: 3500,
                PRESENT: 2000 + 50 * servo,
                LOAD: 1 << 10 | 120,
                CURRENT: 40,
            }
            for address, value in values.items():
                memory[address : address + 2] = value.to_bytes(2, "little")
        threading.Thread(target=self._serve, daemon=True).start()

    def word(self, servo: int, address: int) -> int:
        """Two bytes of a servo's memory."""
        return int.from_bytes(self.memory[servo][address : address + 2], "little")

    def unplug(self) -> None:
        """End the connection."""
        os.close(self._end)

    def _serve(self) -> None:
        """Packets are FF FF, servo, length, instruction, parameters, checksum."""
        buffer = b""
        while data := self._received():
            buffer += data
            while len(buffer) >= 4 and len(buffer) >= (size := 4 + buffer[3]):
                packet, buffer = buffer[:size], buffer[size:]
                if not self.is_silent:
                    self._handle(packet[2], packet[4], packet[5:-1])

    def _received(self) -> bytes:
        """What came; nothing once the connection has ended."""
        try:
            return os.read(self._end, 512)
        except OSError:
            return b""

    def _handle(self, servo: int, instruction: int, given: bytes) -> None:
        match instruction:
            case 1:
                for each in self.memory if servo == EVERYONE else (servo,):
                    self._reply(each)
            case 2:
                self._reply(servo, self.memory[servo][given[0] : given[0] + given[1]])
            case 3:
                self._store(servo, given[0], given[1:])
                self._reply(servo)
            case 0x82:
                for each in given[2:]:
                    self._reply(each, self.memory[each][given[0] : given[0] + given[1]])
            case 0x83:
                for start in range(2, len(given), given[1] + 1):
                    self._store(given[start], given[0], given[start + 1 : start + 1 + given[1]])

    def _store(self, servo: int, address: int, data: bytes) -> None:
        self.memory[servo][address : address + len(data)] = data
        self.log.append((servo, address, data))

    def _reply(self, servo: int, data: bytes = b"") -> None:
        body = bytes((servo, len(data) + 2, 0)) + data
        with contextlib.suppress(OSError):
            os.write(self._end, b"\xff\xff" + body + bytes((~sum(body) & 255,)))
