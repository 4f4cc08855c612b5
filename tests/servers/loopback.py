"""A real HTTP/1.1 server on 127.0.0.1: keep-alive, every request recorded, faults on demand.

One thread accepts, one more serves each connection; nothing sleeps, and `close` wakes whatever waits.
"""

import atexit
import json
import queue
import selectors
import socket
import struct
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from http import HTTPStatus
from io import BufferedReader
from itertools import cycle
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import parse_qs, unquote

_CLOSED = object()
PATIENCE_S = 60.0
"""For what takes milliseconds, on a machine that has much else to do."""
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)  # select() itself ends at descriptor 1024


class Headers(Mapping[str, str]):
    """Header fields whose names compare without case; repeated ones are joined by a comma, as RFC 9110 allows."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        """Take (name, value) pairs in the order they came."""
        self._values: dict[str, str] = {}
        for name, value in pairs:
            key = name.lower()
            self._values[key] = f"{self._values[key]}, {value}" if key in self._values else value

    def __getitem__(self, name: str) -> str:
        """Return the value of `name`, in any case; raises KeyError."""
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        """Give the names in lower case."""
        return iter(self._values)

    def __len__(self) -> int:
        """Return how many names there are."""
        return len(self._values)

    def __repr__(self) -> str:
        """Show them as a dict."""
        return repr(self._values)


@dataclass(frozen=True)
class Recorded:
    """One request as it arrived; `connection` numbers the connection it came on, from 0."""

    method: str
    target: str
    headers: Headers
    body: bytes
    connection: int

    @cached_property
    def path(self) -> str:
        """The path, percent-decoded."""
        return unquote(self.target.partition("?")[0])

    @cached_property
    def query(self) -> dict[str, list[str]]:
        """The query string, each name with its values."""
        return parse_qs(self.target.partition("?")[2], keep_blank_values=True)

    @property
    def json(self) -> Any:
        """The body read as JSON; raises ValueError."""
        return json.loads(self.body)

    @property
    def bearer(self) -> str | None:
        """The bearer token that was sent, None without one."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None


class Fault(Protocol):
    """What a server does instead of its normal answer."""

    def play(self, exchange: "Exchange") -> None:
        """Answer, or fail to."""


class Normal:
    """The server's own answer, for a request before those that a fault is for."""

    def play(self, exchange: "Exchange") -> None:
        """Answer as usual."""
        exchange.normal().play(exchange)


@dataclass(frozen=True)
class Reply:
    """A complete answer. A dict or list goes out as JSON, a str as text/plain, unless `headers` says otherwise."""

    status: int = 200
    body: bytes | str | dict[str, Any] | list[Any] = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def payload(self) -> bytes:
        """The body's bytes."""
        if isinstance(self.body, bytes):
            return self.body
        if isinstance(self.body, str):
            return self.body.encode()
        return json.dumps(self.body, separators=(",", ":")).encode()

    def head(self, length: int) -> bytes:
        """Return the status line and headers of an answer that announces `length` bytes."""
        fields = {"content-length": str(length)}
        if isinstance(self.body, dict | list):
            fields["content-type"] = "application/json"
        elif isinstance(self.body, str):
            fields["content-type"] = "text/plain; charset=utf-8"
        return _head(self.status, fields | {name.lower(): value for name, value in self.headers.items()})

    def play(self, exchange: "Exchange") -> None:
        """Send it whole, in one write; HEAD gets the head alone."""
        payload = self.payload
        exchange.send(self.head(len(payload)) + (b"" if exchange.request.method == "HEAD" else payload))


class Step(Protocol):
    """What happens between two pieces of a stream."""

    def take(self, flow: "Flow") -> None:
        """Wait, or end it."""


@dataclass(frozen=True)
class Stream:
    """An answer in pieces: each goes out as a chunk of its own, in one write, unless the client has left."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: Sequence[bytes | Step] = ()

    @property
    def data(self) -> list[bytes]:
        """The pieces that are sent."""
        return [piece for piece in self.pieces if isinstance(piece, bytes)]

    @property
    def events(self) -> bool:
        """Whether it is server-sent events; lines of JSON otherwise."""
        return self.headers.get("content-type", "").startswith("text/event-stream")

    def whole(self) -> Reply:
        """Return the same bytes as one answer."""
        return Reply(self.status, b"".join(self.data), self.headers)

    def play(self, exchange: "Exchange") -> None:
        """Send it piece by piece."""
        fields = {name.lower(): value for name, value in self.headers.items()} | {"transfer-encoding": "chunked"}
        flow = Flow(exchange)
        try:
            exchange.send(_head(self.status, fields))
            for piece in self.pieces:
                if isinstance(piece, bytes):
                    flow.send(piece)
                else:
                    piece.take(flow)
                if flow.over:
                    return
            flow.end()
        except OSError:
            exchange.server.left()
            raise


class Exchange:
    """One request and the connection its answer goes out on."""

    def __init__(self, server: "Loopback", request: Recorded, connection: socket.socket) -> None:
        """Join them; `open` says whether the connection lives on after the answer."""
        self.server = server
        self.request = request
        self.open = request.headers.get("connection", "").lower() != "close"
        self._connection = connection

    def send(self, data: bytes) -> None:
        """Write to the client; raises OSError when it is gone."""
        self._connection.sendall(data)

    def gone(self, bell: socket.socket | None = None) -> bool:
        """Whether the client has closed the connection; with `bell` it waits until that happens or the bell rings."""
        with _Selector() as selector:
            for watched in (self._connection, bell):
                if watched is not None:
                    selector.register(watched, selectors.EVENT_READ)
            readable = [key.fileobj for key, _ in selector.select(0 if bell is None else None)]
        if bell is not None and bell in readable:
            with suppress(OSError):
                bell.recv(4096)
        if self._connection not in readable:
            return False
        try:
            return not self._connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def normal(self) -> Reply | Stream:
        """Return what the server would answer without a fault."""
        return self.server.handle(self.request)

    def close(self, *, reset: bool = False) -> None:
        """End the connection after this request, with a FIN or (`reset`) with a RST."""
        if reset:
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.open = False


class Flow:
    """A streamed answer on its way."""

    def __init__(self, exchange: Exchange) -> None:
        """Start it; `over` says that nothing more is sent."""
        self.exchange = exchange
        self.over = False

    def send(self, piece: bytes) -> None:
        """Write a piece as one chunk; raises OSError when the client has left."""
        if self.exchange.gone():
            raise ConnectionAbortedError("the client has left")
        if piece:
            self.exchange.send(b"%x\r\n%s\r\n" % (len(piece), piece))

    def end(self) -> None:
        """Say that this was all of it."""
        self.exchange.send(b"0\r\n\r\n")
        self.over = True

    def cut(self, *, reset: bool = False) -> None:
        """Close the connection in the middle of it."""
        self.exchange.close(reset=reset)
        self.over = True


class Hang:
    """No answer until `release`, then the normal one; none at all when the server closes first."""

    def __init__(self) -> None:
        """Start unreleased."""
        self._released = threading.Event()

    def release(self) -> None:
        """Let every request that hangs here, and those still to come, have its answer."""
        self._released.set()

    def play(self, exchange: Exchange) -> None:
        """Wait, then answer."""
        with exchange.server.waking(self._released.set):
            self._released.wait()
        if exchange.server.closing.is_set():
            exchange.close()
        else:
            exchange.normal().play(exchange)


class Drip:
    """The normal answer (or `reply`) one byte at a time: at each `tick`, or every `every` seconds."""

    def __init__(self, reply: Reply | None, every: float | None) -> None:
        """Without `every` the test sets the pace."""
        self._reply = reply
        self._every = every
        self._ticks: queue.SimpleQueue[object] = queue.SimpleQueue()

    def tick(self, count: int = 1) -> None:
        """Let `count` more bytes of the body out."""
        for _ in range(count):
            self._ticks.put(None)

    def play(self, exchange: Exchange) -> None:
        """Send the head at once and the body as it is let out."""
        reply = self._reply or exchange.normal()
        if isinstance(reply, Stream):
            reply = reply.whole()
        payload = reply.payload
        exchange.send(reply.head(len(payload)))
        with exchange.server.waking(lambda: self._ticks.put(_CLOSED)):
            for value in payload:
                if not self._next(exchange.server.closing):
                    exchange.close()
                    return
                exchange.send(bytes([value]))

    def _next(self, closing: threading.Event) -> bool:
        if self._every is not None:
            return not closing.wait(self._every)
        return self._ticks.get() is not _CLOSED


@dataclass(frozen=True)
class Disconnect:
    """The connection closes without a byte of answer."""

    reset: bool

    def play(self, exchange: Exchange) -> None:
        """Close."""
        exchange.close(reset=self.reset)


@dataclass(frozen=True)
class Cut:
    """An answer that stops before the length it announced."""

    reply: Reply
    missing: int

    def play(self, exchange: Exchange) -> None:
        """Send a part and close."""
        payload = self.reply.payload
        exchange.send(self.reply.head(len(payload) + self.missing) + payload)
        exchange.close()


Change = Callable[[Stream], Sequence[bytes | Step]]
"""What a fault makes of the pieces of the normal answer."""


class StreamFault:
    """The normal streamed answer, changed. An answer that is not streamed, such as a refusal, goes out as it is."""

    def __init__(self, change: Change) -> None:
        """Take what is to be made of the pieces."""
        self._change = change

    def play(self, exchange: Exchange) -> None:
        """Answer."""
        answer = exchange.normal()
        if isinstance(answer, Stream):
            answer = replace(answer, pieces=self._change(answer))
        answer.play(exchange)


class HeldStream(StreamFault):
    """A stream that waits at some places until the test lets it on, and notices there that its client leaves.

    `reached` is set once a stream waits, `disconnected` once a client has left one that did. With several streams at
    once each tick lets one of them on.
    """

    def __init__(self, places: Callable[[Step, Sequence[bytes | Step]], Sequence[bytes | Step]]) -> None:
        """Take how the waiting is put between the pieces."""
        super().__init__(lambda stream: places(self, stream.pieces))
        self.reached = threading.Event()
        self.disconnected = threading.Event()
        self._lock = threading.Lock()
        self._bells: list[Callable[[], None]] = []
        self._ticks = 0
        self._released = False

    def tick(self, count: int = 1) -> None:
        """Let a waiting stream on, `count` times."""
        with self._lock:
            self._ticks += count
            self._ring()

    def release(self) -> None:
        """Let every stream on, also those still to come, without further waiting."""
        with self._lock:
            self._released = True
            self._ring()

    def take(self, flow: Flow) -> None:
        """Wait."""
        server = flow.exchange.server
        with _bell() as (ring, bell), self._listening(ring), server.waking(ring):
            self.reached.set()
            while not self._passes():
                if server.closing.is_set():
                    flow.cut()
                    return
                if flow.exchange.gone(bell) and not server.closing.is_set():
                    self.disconnected.set()
                    raise ConnectionAbortedError("the client has left")

    def _passes(self) -> bool:
        with self._lock:
            if not self._released and not self._ticks:
                return False
            self._ticks = max(self._ticks - 1, 0)
            return True

    def _ring(self) -> None:
        for ring in self._bells:
            ring()

    @contextmanager
    def _listening(self, ring: Callable[[], None]) -> Iterator[None]:
        with self._lock:
            self._bells.append(ring)
        try:
            yield
        finally:
            with self._lock:
                self._bells.remove(ring)


@dataclass(frozen=True)
class _Break:
    """The connection closes here."""

    reset: bool

    def take(self, flow: Flow) -> None:
        """Close."""
        flow.cut(reset=self.reset)


@contextmanager
def _bell() -> Iterator[tuple[Callable[[], None], socket.socket]]:
    """Give a call that makes a socket readable, and the socket."""
    ringing, heard = socket.socketpair()
    with ringing, heard:
        ringing.setblocking(False)
        heard.setblocking(False)

        def ring() -> None:
            with suppress(OSError):  # full: it rings already
                ringing.send(b"\0")

        yield ring, heard


def hang() -> Hang:
    """Return a fault that never answers until its `release()` is called or the server closes."""
    return Hang()


def drip(reply: Reply | None = None, *, every: float | None = None) -> Drip:
    """Return a fault that sends the body byte by byte: at each `tick()`, or every `every` seconds."""
    return Drip(reply, every)


def disconnect(*, reset: bool = False) -> Disconnect:
    """Return a fault that reads the request and closes the connection unanswered, with a RST if `reset`."""
    return Disconnect(reset)


def cut(sent: bytes = b"[[0.1,", *, missing: int = 1000, status: int = 200) -> Cut:
    """Return a fault that sends `sent` as JSON, announced as `missing` bytes longer, and closes."""
    return Cut(Reply(status, sent, {"content-type": "application/json"}), missing)


def redirect(location: str, status: int = 307) -> Reply:
    """Return a redirect to `location`."""
    return Reply(status, b"", {"location": location})


def html(status: int = 502) -> Reply:
    """Return the HTML page a proxy puts in the place of the server's answer."""
    phrase = _phrase(status)
    page = f"<html>\r\n<head><title>{status} {phrase}</title></head>\r\n<body>\r\n<center><h1>{status} {phrase}</h1>"
    page += "</center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    return Reply(status, page, {"content-type": "text/html"})


def garbage() -> Reply:
    """Return a 200 that says JSON and is not."""
    return Reply(200, b"[[0.1, 0.2], \xff not json", {"content-type": "application/json"})


def cut_stream(after: int, *, reset: bool = False) -> StreamFault:
    """Return a fault that sends `after` events of the normal stream and closes, with a RST if `reset`, in the middle."""
    return StreamFault(lambda stream: [*stream.pieces[:after], _Break(reset)])


def end_stream(after: int) -> StreamFault:
    """Return a fault that sends `after` events of the normal stream and ends the body as if this were all."""
    return StreamFault(lambda stream: stream.pieces[:after])


def stall_stream(after: int) -> HeldStream:
    """Return a fault that sends `after` events of the normal stream and the rest once its `release()` is called."""
    return HeldStream(lambda stall, pieces: [*pieces[:after], stall, *pieces[after:]])


def paced_stream() -> HeldStream:
    """Return a fault that sends the normal stream one event at each `tick()`."""
    return HeldStream(lambda pace, pieces: [step for piece in pieces for step in (pace, piece)])


def garble_stream(after: int, data: bytes | None = None) -> StreamFault:
    """Return a fault that puts `data`, broken JSON without it, after so many events of the normal stream."""

    def change(stream: Stream) -> Sequence[bytes | Step]:
        broken = b"data: {not json\n\n" if stream.events else b"{not json\n"
        return [*stream.pieces[:after], broken if data is None else data, *stream.pieces[after:]]

    return StreamFault(change)


def error_in_stream(after: int, payload: Any = None) -> StreamFault:
    """Return a fault that sends `after` events, then an error inside the 200, and ends.

    payload: the event's JSON, or the error's message, which is put into OpenAI's form in server-sent events and into
    Ollama's in lines of JSON.
    """

    def change(stream: Stream) -> Sequence[bytes | Step]:
        said = "the engine has died" if payload is None else payload
        if isinstance(said, str):
            detail = {"message": said, "type": "InternalServerError", "param": None, "code": 500}
            said = {"error": detail if stream.events else said}
        line = json.dumps(said).encode()
        return [*stream.pieces[:after], b"data: %s\n\n" % line if stream.events else line + b"\n"]

    return StreamFault(change)


def without_done() -> StreamFault:
    """Return a fault that leaves out the `data: [DONE]` at the end, as several providers do."""
    return StreamFault(
        lambda stream: [
            piece for piece in stream.pieces if not isinstance(piece, bytes) or piece.strip() != b"data: [DONE]"
        ]
    )


def split_stream(sizes: int | Iterable[int]) -> StreamFault:
    """Return a fault that sends the bytes of the normal stream cut anew, at `sizes`, from the first again at the end."""
    wanted = [sizes] if isinstance(sizes, int) else list(sizes)
    if min(wanted, default=0) < 1:
        raise ValueError(f"sizes are 1 and more, not {wanted}")

    def change(stream: Stream) -> Sequence[bytes | Step]:
        data, start = b"".join(stream.data), 0
        cuts: list[bytes | Step] = []
        for size in cycle(wanted):
            if start >= len(data):
                return cuts
            cuts.append(data[start : start + size])
            start += size
        return cuts

    return StreamFault(change)


class Loopback:
    """A server on a free port of 127.0.0.1; subclasses say what it answers.

    Use it as a context manager: leaving it closes the server, and raises what a `handle` raised meanwhile.
    """

    def __init__(self) -> None:
        """Listen, and serve from now on."""
        self.requests: list[Recorded] = []
        self.on_request: Callable[[Recorded], None] | None = None
        self.closing = threading.Event()
        self.gone = 0
        self._arrived = threading.Condition()
        self._queued: list[tuple[str | None, Fault]] = []
        self._sticky: dict[str | None, Fault] = {}
        self._wakers: list[Callable[[], None]] = []
        self._failures: list[Exception] = []
        self._connections: dict[int, socket.socket] = {}
        self._threads: list[threading.Thread] = []
        self._accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._start(self._accept)

    def handle(self, request: Recorded) -> Reply | Stream:
        """Return the normal answer; called from many threads at once."""
        return Reply(404, {"error": f"nothing at {request.path}"})

    def __enter__(self) -> Self:
        """Return the server, which is already up."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, and let a broken fake fail the test that used it."""
        self.close()
        if kind is None and self._failures:
            raise self._failures[0]

    def fail(self, *faults: Fault, path: str | None = None) -> None:
        """Queue faults, each for one request (to `path`, if given), before the normal answers."""
        with self._arrived:
            self._queued += [(path, fault) for fault in faults]

    def always(self, fault: Fault, path: str | None = None) -> None:
        """Answer every request (to `path`, if given) with this fault, once the queued ones are used up."""
        with self._arrived:
            self._sticky[path] = fault

    def recover(self) -> None:
        """Forget all faults. What already hangs goes on hanging until its own `release`."""
        with self._arrived:
            self._queued.clear()
            self._sticky.clear()

    def count(self, path: str | None = None) -> int:
        """Return how many requests came (to `path`, if given)."""
        return sum(path in (None, request.path) for request in list(self.requests))

    @property
    def connections(self) -> int:
        """How many connections were ever accepted."""
        return self._accepted

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        with self._arrived:
            return len(self._connections)

    def wait_for(self, n: int, path: str | None = None, timeout: float = PATIENCE_S) -> list[Recorded]:
        """Block until `n` requests have arrived (at `path`, if given) and return all requests.

        Raises AssertionError after `timeout` seconds.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: self.count(path) >= n, timeout):
                raise AssertionError(f"{self.count(path)} of {n} requests in {timeout} s: {self.requests}")
            return list(self.requests)

    def wait_gone(self, n: int = 1, timeout: float = PATIENCE_S) -> None:
        """Block until `n` clients have left in the middle of a stream, which `gone` counts.

        A stream that nothing holds back is sent before its client can leave. Raises AssertionError after `timeout` seconds.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: self.gone >= n, timeout):
                raise AssertionError(f"{self.gone} of {n} clients left in {timeout} s")

    def left(self) -> None:
        """Count a client that left in the middle of a stream; those whose connection `close` ended did not."""
        with self._arrived:
            if not self.closing.is_set():
                self.gone += 1
                self._arrived.notify_all()

    def drop_connections(self) -> None:
        """Close every open connection, as a server does with idle ones."""
        with self._arrived:
            for connection in self._connections.values():
                _shut(connection)

    def close(self) -> None:
        """Stop listening, end every connection and wake whatever hangs; returns when all threads are gone."""
        if self.closing.is_set():
            return
        with self._arrived:
            self.closing.set()
            for wake in self._wakers:
                wake()
        # A thread in accept() is woken by a connection on every platform, by closing the socket only on some.
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()
        self._threads[0].join(PATIENCE_S)
        self._listener.close()
        self.drop_connections()
        others = [thread for thread in self._threads if thread is not threading.current_thread()]
        for thread in others:
            thread.join(PATIENCE_S)
        stuck = [thread.name for thread in others if thread.is_alive()]
        assert not stuck, f"threads still running: {stuck}"

    def waking(self, wake: Callable[[], None]) -> "_Waker":
        """Return a context in which `close` calls `wake`, at once if the server is closed already."""
        return _Waker(self, wake)

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, name=f"{type(self).__name__}:{self.port}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with self._arrived:
                if self.closing.is_set():
                    connection.close()
                    return
                number = self._accepted
                self._accepted += 1
                self._connections[number] = connection
            self._start(self._serve, connection, number)

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            with connection, connection.makefile("rb") as reader:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while request := _read(reader, connection, number):
                    exchange = Exchange(self, request, connection)
                    self._answer(exchange)
                    if not exchange.open:
                        break
        except (OSError, ValueError):
            pass  # the client went away, or does not speak HTTP
        finally:
            with self._arrived:
                self._connections.pop(number, None)

    def _answer(self, exchange: Exchange) -> None:
        request = exchange.request
        with self._arrived:
            fault = self._next_fault(request.path)
            self.requests.append(request)
            self._arrived.notify_all()
        try:
            if self.on_request is not None:
                self.on_request(request)
            (fault or exchange.normal()).play(exchange)
        except OSError:
            raise
        except Exception as error:
            self._failures.append(error)
            exchange.close()
            Reply(500, traceback.format_exc()).play(exchange)

    def _next_fault(self, path: str) -> Fault | None:
        for index, (wanted, fault) in enumerate(self._queued):
            if wanted in (None, path):
                del self._queued[index]
                return fault
        return self._sticky.get(path) or self._sticky.get(None)


class _Waker:
    """While entered, the server's `close` calls `wake`."""

    def __init__(self, server: Loopback, wake: Callable[[], None]) -> None:
        self._server = server
        self._wake = wake

    def __enter__(self) -> None:
        with self._server._arrived:
            self._server._wakers.append(self._wake)
            if self._server.closing.is_set():
                self._wake()

    def __exit__(self, *_: object) -> None:
        with self._server._arrived:
            self._server._wakers.remove(self._wake)


def _read(reader: BufferedReader, connection: socket.socket, number: int) -> Recorded | None:
    """Read one request; None when the client has closed."""
    start = reader.readline()
    if not start.strip():
        return None
    method, target, version = start.decode("latin-1").split()
    pairs: list[tuple[str, str]] = []
    while (line := reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        pairs.append((name, value.strip()))
    if version == "HTTP/1.0":
        pairs.append(("connection", "close"))
    headers = Headers(pairs)
    if headers.get("expect", "").lower() == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = b"".join(_chunks(reader))
    else:
        length = int(headers.get("content-length", "0"))
        body = reader.read(length)
        if len(body) < length:
            return None
    return Recorded(method, target, headers, body, number)


def _chunks(reader: BufferedReader) -> Iterator[bytes]:
    while size := int(reader.readline().partition(b";")[0] or b"0", 16):
        yield reader.read(size)
        reader.readline()
    while reader.readline().strip():
        pass


def _head(status: int, fields: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} {_phrase(status)}\r\n{lines}\r\n".encode("latin-1")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unassigned"  # 499, 529


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # already gone
        connection.shutdown(socket.SHUT_RDWR)


def dead_url() -> str:
    """Return a URL whose port refuses connections, and goes on refusing: bound, so nobody gets it, never listening."""
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    atexit.register(holder.close)
    return f"http://127.0.0.1:{holder.getsockname()[1]}"


class Silent:
    """A port that takes connections and never says a word; with `accepts=False` it does not even take them.

    There is no thread behind it: the kernel completes the handshake and nobody reads. Without `accepts` the backlog is
    full from the start, so that a connection attempt runs into its timeout (Linux: a full backlog drops the SYN).
    """

    def __init__(self, *, accepts: bool = True) -> None:
        """Listen."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024 if accepts else 0)
        self._fillers: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        for _ in range(0 if accepts else 4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self._listener.getsockname())
            self._fillers.append(filler)

    def __enter__(self) -> Self:
        """Return it; it listens already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the port."""
        for holder in (self._listener, *self._fillers):
            holder.close()
