"""A stand-in for an Android device: the device side of the ADB protocol, over TCP on loopback.

It speaks enough of it for the real `adb` client: connect and authentication, `shell:` (plain and
v2) and `sync:` (stat, push, pull). Commands run in a folder of its own, where `/data/local/tmp` and
`/sys/devices` lie, and it can be told to misbehave.
"""

import contextlib
import itertools
import os
import queue
import signal
import socket
import struct
import subprocess
import threading
from pathlib import Path

_NAMES = (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
_CNXN, _AUTH, _OPEN, _OKAY, _CLSE, _WRTE = (int.from_bytes(name, "little") for name in _NAMES)
_VERSION, _MAX_DATA, _TOKEN = 0x01000001, 64 * 1024, 1
_MOVED = ("/data/local/tmp", "/sys/devices")  # what lies in the folder


class _Stream:
    """One service that the client opened."""

    def __init__(self, connection: "_Connection", number: int, remote: int):
        self._connection, self.number, self.remote = connection, number, remote
        self.incoming: queue.Queue[bytes] = queue.Queue()  # b"" ends it
        self.acknowledged: queue.Queue[bool] = queue.Queue()
        self._rest = b""

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), _MAX_DATA):
            piece = data[start : start + _MAX_DATA]
            self._connection.send(_WRTE, self.number, self.remote, piece)
            if not self.acknowledged.get():
                raise ConnectionError

    def read(self, count: int) -> bytes:
        while len(self._rest) < count:
            piece = self.incoming.get()
            if not piece:
                raise ConnectionError
            self._rest += piece
        data, self._rest = self._rest[:count], self._rest[count:]
        return data

    def end(self) -> None:
        self.incoming.put(b"")
        self.acknowledged.put(False)


class _Connection(threading.Thread):
    def __init__(self, phone: "StandInPhone", link: socket.socket):
        super().__init__(daemon=True)
        self._phone, self._link = phone, link
        self._streams: dict[int, _Stream] = {}
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        header = struct.pack(
            "<6I", command, first, second, len(data), sum(data), command ^ 0xFFFFFFFF
        )
        with self._sending:
            self._link.sendall(header + data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)
        self._link.close()
        for stream in [*self._streams.values()]:
            stream.end()

    def run(self) -> None:
        with contextlib.suppress(OSError, ConnectionError):
            while True:
                command, first, second, length, _, _ = struct.unpack("<6I", self._receive(24))
                self._handle(command, first, second, self._receive(length))
        self.close()

    def _receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._link.recv(count - len(data))
            if not piece:
                raise ConnectionError
            data += piece
        return data

    def _handle(self, command: int, first: int, second: int, data: bytes) -> None:
        if command in (_CNXN, _AUTH):
            self._greet()
        elif command == _OPEN:
            stream = _Stream(self, next(self._numbers), first)
            self._streams[stream.number] = stream
            service = data.rstrip(b"\0").decode()
            threading.Thread(target=self._serve, args=(stream, service), daemon=True).start()
        elif second in self._streams and command == _WRTE:
            self._streams[second].incoming.put(data)
            self.send(_OKAY, second, first)
        elif second in self._streams and command == _OKAY:
            self._streams[second].acknowledged.put(True)
        elif second in self._streams and command == _CLSE:
            self._streams.pop(second).end()

    def _greet(self) -> None:
        if self._phone.state == "offline":
            return
        if self._phone.state == "unauthorized":
            self.send(_AUTH, _TOKEN, 0, b"t" * 20)
            return
        features = "" if self._phone.old_shell else "shell_v2"
        banner = f"device::ro.product.model=StandIn;features={features}"
        self.send(_CNXN, _VERSION, _MAX_DATA, banner.encode())

    def _serve(self, stream: _Stream, service: str) -> None:
        with contextlib.suppress(OSError, ConnectionError):
            kind, _, argument = service.partition(":")
            self.send(_OKAY, stream.number, stream.remote)
            if kind.startswith("shell"):
                self._phone.shell(stream, argument, packets=",v2" in kind)
            elif kind == "sync":
                with contextlib.suppress(ConnectionError):
                    self._phone.sync(stream)
            self.send(_CLSE, stream.number, stream.remote)


class StandInPhone:
    """Listens until `close`.

    Attributes:
        root: its folder.
        serial: as adb calls it.
        state: "device", "unauthorized" or "offline".
        old_shell: no shell v2: the client is told no exit status.
        room: bytes that still can be pushed.
        break_at: a text in a command at which the connection breaks, while the command runs.
        gone: after that it cannot be connected to any more.
        commands: that were run.
    """

    def __init__(self, root: Path, state: str = "device"):
        self.root, self.state = root, state
        self.old_shell, self.gone, self.break_at = False, False, ""
        self.room = 10**9
        self.commands: list[str] = []
        self._connections: list[_Connection] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._listener.getsockname()[1]}"
        for folder in (*_MOVED, "/bin"):
            (root / folder[1:]).mkdir(parents=True)
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def temporary(self) -> Path:
        return self.root / "data/local/tmp"

    def install(self, name: str, script: str) -> None:
        """Puts a program on its PATH."""
        path = self.root / "bin" / name
        path.write_text(script)
        path.chmod(0o755)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            connection.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                connection = _Connection(self, link)
                self._connections.append(connection)
                connection.start()

    def shell(self, stream: _Stream, command: str, packets: bool) -> None:
        self.commands.append(command)
        process = subprocess.Popen(
            ["/bin/sh", "-c", self._moved(command)],
            env={"PATH": f"{self.root}/bin:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        if self.break_at and self.break_at in command:
            self.break_at = ""
            os.killpg(process.pid, signal.SIGKILL)
            if self.gone:
                self.close()
            for connection in self._connections:
                connection.close()
        output = process.communicate()[0].replace(str(self.root).encode(), b"")
        if packets:
            stream.write(struct.pack("<BI", 1, len(output)) + output)
            stream.write(struct.pack("<BIB", 3, 1, process.returncode & 0xFF))
        else:
            stream.write(output)

    def sync(self, stream: _Stream) -> None:
        while True:
            request, length = struct.unpack("<4sI", stream.read(8))
            if request == b"QUIT":
                return
            path = self._moved(stream.read(length).decode())
            if request == b"STAT":
                facts = os.stat(path) if os.path.exists(path) else None
                numbers = (facts.st_mode, facts.st_size, 0) if facts else (0, 0, 0)
                stream.write(struct.pack("<4s3I", b"STAT", *numbers))
            elif request == b"SEND":
                self._take(stream, Path(path.rpartition(",")[0]))
            elif request == b"RECV":
                self._give(stream, Path(path))

    def _take(self, stream: _Stream, path: Path) -> None:
        content = b""
        while True:
            kind, length = struct.unpack("<4sI", stream.read(8))
            if kind == b"DONE":
                break
            content += stream.read(length)
        if len(content) > self.room:
            self._fail(stream, "couldn't write: No space left on device")
            return
        self.room -= len(content)
        path.write_bytes(content)
        stream.write(struct.pack("<4sI", b"OKAY", 0))

    def _give(self, stream: _Stream, path: Path) -> None:
        if not path.is_file():
            self._fail(stream, "No such file or directory")
            return
        content = path.read_bytes()
        for start in range(0, len(content), _MAX_DATA):
            piece = content[start : start + _MAX_DATA]
            stream.write(struct.pack("<4sI", b"DATA", len(piece)) + piece)
        stream.write(struct.pack("<4sI", b"DONE", 0))

    def _fail(self, stream: _Stream, text: str) -> None:
        stream.write(struct.pack("<4sI", b"FAIL", len(text)) + text.encode())

    def _moved(self, text: str) -> str:
        for folder in _MOVED:
            text = text.replace(folder, f"{self.root}{folder}")
        return text
