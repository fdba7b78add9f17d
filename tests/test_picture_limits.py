"""Pictures never end a batch: memory is budgeted before decoding, downloads end in time, odd names are names."""

import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from ovseg import cli
from ovseg.pictures import budget, fetch
from ovseg.pictures.budget import available, check_budget, is_out_of_memory
from ovseg.pictures.fetch import Later
from ovseg.pictures.images import iter_sources, load_image, read_ahead, unique_stems
from ovseg.pictures.pixels import ImageError


def bomb(path, side: int):
    """A PNG of side × side black pixels of one bit, whose file is tiny."""
    packed = zlib.compressobj(9)
    rows = b"".join(packed.compress(bytes(1 + (side + 7) // 8)) for _ in range(side)) + packed.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


# --- memory ----------------------------------------------------------------------------------------------------------


def test_free_memory_is_known_here():
    assert 2**24 < available() < 2**50


def test_the_budget_is_a_share_of_what_is_free(monkeypatch):
    monkeypatch.setattr(budget, "available", lambda: 10**9)
    check_budget(1000, 1000, "a.png", per_pixel=799)
    with pytest.raises(ImageError, match=r"a.png .* 1000 x 1000 .* 0.801 GB .* 1 GB are free.* --memory 2GB"):
        check_budget(1000, 1000, "a.png", per_pixel=801)
    monkeypatch.setattr(budget, "available", lambda: None)
    check_budget(10**5, 10**5, "a.png")


@pytest.mark.parametrize("kind", ["file", "image", "array"])
def test_too_large_a_picture_is_not_decoded(tmp_path, monkeypatch, kind):
    path = bomb(tmp_path / "bomb.png", 4000)
    assert path.stat().st_size < 4000
    source = {"file": path, "image": Image.open(path), "array": np.zeros((4000, 4000), np.uint8)}[kind]
    monkeypatch.setattr(budget, "available", lambda: 10**8)
    decoded = []
    monkeypatch.setattr(Image.Image, "convert", lambda *_: decoded.append(1))
    with pytest.raises(ImageError, match="--memory"):
        load_image(source)
    assert not decoded


def test_memory_that_runs_out_is_an_image_error(tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(ImageError, match="memory ran out"):
        load_image(bomb(tmp_path / "a.png", 10))


@pytest.mark.parametrize(
    "error, so",
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"), True),
        (RuntimeError("shapes do not match"), False),
    ],
)
def test_what_is_out_of_memory(error, so):
    assert is_out_of_memory(error) == so


def test_the_need_grows_with_what_is_done(vit):
    from ovseg.predict.memory import bytes_per_pixel
    from ovseg.predict.pipeline import Pipeline
    from ovseg.predict.protocol import Protocol

    def need(**settings):
        return bytes_per_pixel(Pipeline(vit, dict(type="MaskCLIP"), Protocol(**settings)))

    small = need(short_side=64, window=64, stride=64)
    assert small < need(short_side=64, window=64, stride=64, refine=("PAMR",))
    assert small < need(short_side=None, window=64, stride=64) < need(short_side=None, window=64, stride=16)


def test_a_batch_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bomb(tmp_path / "bomb.png", 20000)
    Image.new("RGB", (40, 30), "red").save("good.png")
    monkeypatch.setattr(budget, "available", lambda: 10**10)
    sources = ("bomb.png", "http://[::1/odd.png", "~nobody-of-that-name/a.png", "good.png")
    with pytest.raises(SystemExit) as caught:
        cli.main(["predict", *sources, "-c", "cat, dog", "--templates", "name", "--no-progress", "--json"])
    out, err = capsys.readouterr()
    assert caught.value.code == 1 and [json.loads(line)["image"] for line in out.splitlines()] == ["good.png"]
    told = err[err.index("3 of 4 picture(s)") :]
    assert "20000 x 20000" in told and "--memory" in told and "http://[::1/odd.png" in told and "~nobody" in told


def test_memory_that_runs_out_on_the_way_costs_one_picture(tmp_path, monkeypatch, capsys):
    from ovseg.apis.predictor import Predictor

    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 30), "red").save(name)
    predict, calls = Predictor.predict, []

    def once(self):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return predict(self)

    monkeypatch.setattr(Predictor, "predict", once)
    with pytest.raises(SystemExit) as caught:
        cli.main(["predict", "a.png", "b.png", "-c", "cat, dog", "--templates", "name", "--no-progress"])
    out, err = capsys.readouterr()
    assert caught.value.code == 1 and "1 picture(s) segmented" in out and "a.png is too large" in err


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.fixture
def dripping():
    """Address of a server that sends a byte now and then, for ever, of its body, or with ``/head`` of its headers; and
    an event that it has begun to."""
    server, stop, begun = socket.create_server(("127.0.0.1", 0)), threading.Event(), threading.Event()

    def drip(connection):
        with connection:
            asked = connection.recv(1000)
            if b"/head" not in asked:
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 9999\r\n\r\n")
            else:
                connection.sendall(b"HTTP/1.0 200 OK\r\nX: ")
            while not stop.wait(0.02):
                try:
                    connection.sendall(b"x")
                    begun.set()
                except OSError:
                    return

    def serve():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=drip, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}", begun
    stop.set()
    server.close()


@pytest.mark.parametrize("page", ["body.png", "head.png"])
def test_a_dripping_server_is_left(dripping, monkeypatch, page):
    monkeypatch.setattr(fetch, "TOTAL_TIME", 0.3)
    with pytest.raises(ImageError, match="after 0.3 seconds"):
        load_image(f"{dripping[0]}/{page}")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_one_interrupt_is_enough(dripping):
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which some shells switch off
        "from ovseg.pictures.images import read_ahead\n"
        "try: list(read_ahead([sys.argv[1]]))\n"
        "except KeyboardInterrupt: print('interrupted', flush=True)"
    )
    command = [sys.executable, "-c", code, f"{dripping[0]}/a.png"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert dripping[1].wait(60)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert process.wait(fetch.TOTAL_TIME / 2) == 0  # though the thread is still fetching


def test_what_a_thread_raises_is_raised_where_it_is_asked_for():
    assert Later(lambda: 7).result() == 7
    with pytest.raises(ZeroDivisionError):
        Later(lambda: 1 / 0).result()
    with pytest.raises(TimeoutError):
        Later(threading.Event().wait).result(0.01)


def test_odd_names_are_names():
    assert unique_stems(["http://[/a.png", "~nobody-of-that-name/b.png"]) == ["a", "b"]
    for source in ("http://[/a.png", "http://exa mple/a.png", "http://127.0.0.1:99999/a.png", "http://\0/"):
        ((_, error),) = read_ahead(iter_sources(source))
        assert isinstance(error, ImageError) and "could not fetch" in str(error)
    with pytest.raises(ImageError, match="no file"):
        load_image("~nobody-of-that-name/b.png")
