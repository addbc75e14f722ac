"""The engine is obtained once, by the first way that works, and never half."""

from __future__ import annotations

import http.server
import os
import re
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from synapse_media.engine import __main__ as engine_main
from synapse_media.engine import embedded, obtain, versions
from synapse_media.engine.obtain import GoProgram, ObtainError, Toolchain
from synapse_media.engine.paths import private_dir
from tests.engine.helpers import Said, eventually, script


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Go's own caches stay: without them every test would build Go's library.
    go_cache = subprocess.run(["go", "env", "GOCACHE"], capture_output=True, text=True, check=True).stdout.strip()
    monkeypatch.setenv("GOCACHE", go_cache)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/synapse-media/engine"


@pytest.fixture
def stand_in_module(tmp_path: Path) -> GoProgram:
    """A tiny Go module in the place of a large one."""
    source = tmp_path / "stand-in"
    source.mkdir()
    (source / "go.mod").write_text("module stand-in.example\n\ngo 1.25.0\n")
    (source / "main.go").write_text('package main\n\nvar word = "none"\n\nfunc main() { println(word) }\n')
    return GoProgram("stand-in", source, ".", "main.word=stamped")


def only_on_path(monkeypatch: pytest.MonkeyPatch, *directories: Path) -> None:
    """A PATH without the machine's own tools, but for those of the system's /bin."""
    monkeypatch.setenv("PATH", os.pathsep.join([*map(str, directories), "/usr/bin", "/bin"]))


# The real thing.


def test_the_real_engine_answers_with_its_version(engine_toolchain: Toolchain) -> None:
    answer = subprocess.run([engine_toolchain.pulumi, "version"], capture_output=True, text=True, check=True)
    major, minor, patch = re.fullmatch(r"v?(\d+)\.(\d+)\.(\d+)\S*", answer.stdout.strip()).groups()  # type: ignore[union-attr]
    assert (int(major), int(minor), int(patch)) >= versions.MINIMUM_PULUMI


def test_what_is_there_is_found_without_a_word(engine_toolchain: Toolchain, said: Said) -> None:
    assert obtain.obtain_pulumi(said) == engine_toolchain
    assert obtain.obtain_versitygw(said).name == "versitygw"
    assert obtain.obtain_rclone(said).name == "rclone"
    assert said.lines == []


def test_the_real_versitygw_is_the_pinned_one_with_its_one_backend() -> None:
    program = obtain.obtain_versitygw()
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert answer.stdout == f"versitygw {versions.VERSITYGW}\n"
    modules = (obtain.VERSITYGW.source / "go.mod").read_text(encoding="utf-8")
    assert "azure-sdk" not in modules
    assert "scoutfs" not in modules
    answer = subprocess.run([program, "azure"], capture_output=True, text=True, check=False)
    assert (answer.returncode, "no command" in answer.stderr) == (1, True)


def test_a_program_of_another_source_is_built_anew(
    own_cache: Path, stand_in_module: GoProgram, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obtain, "VERSITYGW", stand_in_module)
    # What an earlier release built, without the mark of its source.
    earlier = script(own_cache / f"stand-in-{versions.VERSITYGW}" / stand_in_module.name, "exit 1")
    first = obtain.obtain_versitygw(said)
    assert first != earlier
    assert obtain.has_versitygw()
    count = len(said.lines)
    assert obtain.obtain_versitygw(said) == first
    assert len(said.lines) == count
    (stand_in_module.source / "main.go").write_text("package main\n\nfunc main() {}\n")
    assert not obtain.has_versitygw()
    second = obtain.obtain_versitygw(said)
    assert second != first
    assert first.exists(), "another checkout may use it"


@pytest.mark.parametrize(
    ("program", "module", "version"),
    [
        (obtain.PULUMI, "github.com/pulumi/pulumi/pkg/v3", versions.PULUMI),
        (obtain.PULUMI, "github.com/pulumi/pulumi/sdk/v3", versions.PULUMI),
        (obtain.LANGUAGE_HOST, "github.com/pulumi/pulumi/sdk/v3", versions.LANGUAGE_HOST),
        (obtain.VERSITYGW, "github.com/versity/versitygw", versions.VERSITYGW),
        (obtain.RCLONE, "github.com/rclone/rclone", versions.RCLONE),
    ],
)
def test_the_pins_are_those_of_go_mod(program: GoProgram, module: str, version: str) -> None:
    text = (program.source / "go.mod").read_text()
    assert f"{module} v{version}\n" in text
    minimum = re.search(r"^go (\d+)\.(\d+)", text, re.MULTILINE)
    assert minimum
    assert tuple(map(int, minimum.groups())) == versions.MINIMUM_GO


def test_the_rclone_that_is_built_is_the_pinned_one_and_has_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obtain, "_rclone_on_path", lambda: (None, ""))
    program = obtain.obtain_rclone()
    answer = subprocess.run([program, "version"], capture_output=True, text=True, check=True)
    assert f"rclone v{versions.RCLONE}\n" in answer.stdout
    answer = subprocess.run([program, "help"], capture_output=True, text=True, check=True)
    for command in ("copy", "md5sum"):
        assert re.search(rf"^  {command} ", answer.stdout, re.MULTILINE)
    assert program.stat().st_size < 60 << 20, "two backends, not all of them"


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        ("rclone v1.60.1-DEV\n- os/version: debian 12", True),
        ("rclone v1.75.0\n", True),
        ("rclone v1.59.2\n", False),
        ("rclone v0.99\n", False),
        ("something else\n", False),
    ],
)
def test_an_rclone_on_path_is_used_if_it_is_new_enough(
    answer: str, taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin/rclone"
    program.parent.mkdir()
    # As 1.60, it does not start with this variable.
    program.write_text(f"#!/bin/sh\n[ -z \"$AWS_CA_BUNDLE\" ] || exit 1\nprintf '{answer}'\n")
    program.chmod(0o755)
    only_on_path(monkeypatch, program.parent)
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/ca.pem")
    found, why_not = obtain._rclone_on_path()
    assert (found == program) is taken
    assert bool(why_not) is not taken
    assert taken or "1.60 or newer is needed" in why_not


def test_without_rclone_and_go_it_is_said_how_to_install_it(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    only_on_path(monkeypatch)
    with pytest.raises(ObtainError, match="apt install rclone") as caught:
        obtain.obtain_rclone(said)
    assert "There is no rclone on PATH" in str(caught.value)


# Building.


def test_a_build_is_stamped_and_done_once(own_cache: Path, stand_in_module: GoProgram, said: Said) -> None:
    home = own_cache / "stand-in-1"
    binary = obtain.build_once(stand_in_module, home, said)
    answer = subprocess.run([binary], capture_output=True, text=True, check=True)
    assert answer.stderr == "stamped\n"
    assert [item.name for item in home.iterdir()] == ["stand-in"]
    assert sorted(item.name for item in stand_in_module.source.iterdir()) == ["go.mod", "main.go"]
    count = len(said.lines)
    assert obtain.build_once(stand_in_module, home, said) == binary
    assert len(said.lines) == count


def test_the_users_go_settings_do_not_change_a_build(
    own_cache: Path, stand_in_module: GoProgram, said: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOFLAGS", "-mod=vendor -tags=nonsense")
    monkeypatch.setenv("GOWORK", str(tmp_path / "no-such-go.work"))
    assert obtain.build_once(stand_in_module, own_cache / "stand-in-1", said).exists()


def test_two_at_once_build_once(own_cache: Path, stand_in_module: GoProgram, said: Said) -> None:
    home = own_cache / "stand-in-1"
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(obtain.build_once, stand_in_module, home, said) for _ in range(3)]
    assert {answer.result() for answer in answers} == {home / "stand-in"}
    assert len([line for line in said.lines if line.startswith("Built")]) == 1
    assert "waiting for it" in said.text


_INTERRUPTED = """
import sys
from pathlib import Path
from synapse_media.engine import obtain
obtain.build_once(obtain.GoProgram("stand-in", Path(sys.argv[1]), "."), Path(sys.argv[2]), print)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_build_leaves_nothing_that_is_taken_for_whole(
    own_cache: Path, stand_in_module: GoProgram, said: Said, tmp_path: Path, number: signal.Signals
) -> None:
    home = own_cache / "stand-in-1"
    started = tmp_path / "started"
    # A stand-in for `go` that writes half a program and then takes for ever.
    script(
        tmp_path / "bin/go",
        f'[ "$1" = version ] && echo go version go1.25.0 linux/amd64 && exit\n'
        f'while [ "$1" != -o ]; do shift; done; echo half > "$2"; echo $$ > {started}; exec sleep 100',
    )
    child = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, stand_in_module.source, home],
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert eventually(lambda: started.exists() and started.read_text().strip() != "")
    child.send_signal(number)
    child.wait(timeout=120)
    assert not home.exists()
    compiler = int(started.read_text())
    if number != signal.SIGKILL:
        assert list(own_cache.glob(".stand-in-1.staging-*")) == []
        assert not Path(f"/proc/{compiler}").exists()
    else:  # nobody could clean up: the next one does
        os.kill(compiler, signal.SIGKILL)
        assert len(list(own_cache.glob(".stand-in-1.staging-*"))) == 1
    obtain.build_once(stand_in_module, home, said)
    assert list(own_cache.glob(".stand-in-1.staging-*")) == []


def test_progress_is_shown_while_building(
    own_cache: Path, stand_in_module: GoProgram, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obtain, "_LINE_EVERY", 0.1)
    # A stand-in for `go` that takes a while.
    script(
        tmp_path / "bin/go",
        '[ "$1" = version ] && echo go version go1.25.0 linux/amd64 && exit\n'
        'echo some/package >&2; sleep 2; while [ "$1" != -o ]; do shift; done; echo whole > "$2"',
    )
    only_on_path(monkeypatch, tmp_path / "bin")
    obtain.build_once(stand_in_module, own_cache / "stand-in-1", said)
    assert re.search(r"stand-in: 1 packages in \d+ s", said.text)


def test_missing_go_is_named(
    own_cache: Path, stand_in_module: GoProgram, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ObtainError, match=r"`go` is not on PATH.*Install Go 1\.25 or newer: https://go\.dev/dl/"):
        obtain.build_once(stand_in_module, own_cache / "stand-in-1", said)
    assert not (own_cache / "stand-in-1").exists()


@pytest.mark.parametrize(
    "behaviour",
    [
        "echo go version go1.24.9 linux/amd64",
        "echo 'go: go.mod requires go >= 1.25.0 (running go 1.22.1; GOTOOLCHAIN=local)' >&2; exit 1",
    ],
)
def test_a_go_that_is_too_old_is_named(
    stand_in_module: GoProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said, behaviour: str
) -> None:
    script(tmp_path / "bin/go", behaviour)
    only_on_path(monkeypatch, tmp_path / "bin")
    with pytest.raises(ObtainError, match=r"1\.2[24]\..*Install Go 1\.25(\.0)? or newer"):
        obtain.go_build(stand_in_module, tmp_path / "out", said)


def test_a_network_that_is_missing_is_named(
    own_cache: Path, stand_in_module: GoProgram, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # closed again: nobody answers there
    monkeypatch.setenv("GOPROXY", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
    module = stand_in_module.source / "go.mod"
    module.write_text(module.read_text() + "\nrequire elsewhere.example v1.0.0\n")
    (stand_in_module.source / "main.go").write_text('package main\n\nimport _ "elsewhere.example"\n\nfunc main() {}\n')
    (stand_in_module.source / "go.sum").write_text(
        "elsewhere.example v1.0.0 h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
        "elsewhere.example v1.0.0/go.mod h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
    )
    with pytest.raises(ObtainError, match=r"module proxy can't be reached.*GOPROXY"):
        obtain.build_once(stand_in_module, own_cache / "stand-in-1", said)
    assert not (own_cache / "stand-in-1").exists()


def test_a_program_that_does_not_compile_shows_why(own_cache: Path, stand_in_module: GoProgram, said: Said) -> None:
    (stand_in_module.source / "main.go").write_text("package main\n\nfunc main() { undefinedThing() }\n")
    with pytest.raises(ObtainError, match="undefined: undefinedThing"):
        obtain.build_once(stand_in_module, own_cache / "stand-in-1", said)


def test_an_engine_from_source_is_whole(own_cache: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for the two programs, and the real launchers from the real SDK module."""

    def quick_build(program: GoProgram, output: Path, _say: object) -> None:
        script(output, f"echo {program.name}")

    monkeypatch.setattr(obtain, "go_build", quick_build)
    monkeypatch.setenv(obtain.ROUTE_VARIABLE, "source")
    toolchain = obtain.obtain_pulumi(said)
    assert (toolchain.route, toolchain.bin) == ("source", own_cache / f"pulumi-{versions.PULUMI}/source/bin")
    launchers = {"pulumi-language-python-exec", "pulumi-resource-pulumi-python"}
    assert {item.name for item in toolchain.bin.iterdir()} == launchers | {"pulumi", "pulumi-language-python"}
    assert all(os.access(item, os.X_OK) for item in toolchain.bin.iterdir())
    assert "import pulumi" in (toolchain.bin / "pulumi-language-python-exec").read_text()


# A pulumi of the user's own.


def stand_in_pulumi(directory: Path, version: str, *, host: bool = True) -> Path:
    pulumi = script(directory / "pulumi", f"echo {version}")
    if host:
        script(directory / "pulumi-language-python", "exit 1")
    return pulumi


@pytest.mark.parametrize("version", ["v3.259.0", "v3.300.1", "3.260.0-alpha.1"])
def test_a_pulumi_on_path_is_taken_if_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said, version: str
) -> None:
    pulumi = stand_in_pulumi(tmp_path / "bin", version)
    only_on_path(monkeypatch, tmp_path / "bin")
    assert obtain.obtain_pulumi(said) == Toolchain(tmp_path / "bin", pulumi, "path")


def test_a_link_on_path_is_followed_to_the_language_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    pulumi = stand_in_pulumi(tmp_path / "opt", "v3.259.0")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/pulumi").symlink_to(pulumi)
    only_on_path(monkeypatch, tmp_path / "bin")
    assert obtain.obtain_pulumi(said).route == "path"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("v3.258.9", "is v3.258.9; 3.259.0 or newer"),
        ("v4.0.0", "is v4.0.0; 3.259.0 or newer"),
        ("", "is of no version"),
        ("v3.259.0", "has no pulumi-language-python"),
        ("; exit 3", "does not answer"),
    ],
)
def test_another_pulumi_on_path_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said, answer: str, why: str
) -> None:
    ours = obtain.obtain_pulumi(said)
    stand_in_pulumi(tmp_path / "bin", answer, host="no pulumi-language-python" not in why)
    only_on_path(monkeypatch, tmp_path / "bin")
    assert obtain.obtain_pulumi(said) == ours
    monkeypatch.setenv(obtain.ROUTE_VARIABLE, "path")
    with pytest.raises(ObtainError, match=re.escape(why)):
        obtain.obtain_pulumi(said)


def test_our_own_engine_on_path_is_not_taken_for_the_users(
    engine_toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    only_on_path(monkeypatch, engine_toolchain.bin)
    assert obtain.obtain_pulumi(said) == engine_toolchain


def test_a_route_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch, said: Said) -> None:
    monkeypatch.setenv(obtain.ROUTE_VARIABLE, "vendors")
    with pytest.raises(ObtainError, match=r"'vendors'; allowed: path, vendor, source"):
        obtain.obtain_pulumi(said)


def test_no_pulumi_on_path_is_said_when_it_is_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(obtain.ROUTE_VARIABLE, "path")
    with pytest.raises(ObtainError, match="there is no pulumi on PATH"):
        obtain.obtain_pulumi(said)


# The vendor's installer, behind doubles: an https proxy is what stands between it and the vendor.


@pytest.fixture
def silent_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A proxy that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield


@pytest.mark.usefixtures("silent_proxy")
def test_a_vendor_that_says_nothing_is_given_up(own_cache: Path, said: Said) -> None:
    home = own_cache / "pulumi-0"
    private_dir(own_cache)
    with pytest.raises(ObtainError, match="nothing arrived for 2 s"):
        obtain._from_vendor(home, said, silence=2)
    assert list(home.iterdir()) == []


@pytest.mark.usefixtures("silent_proxy")
def test_a_vendor_that_takes_for_ever_is_given_up(own_cache: Path, said: Said) -> None:
    private_dir(own_cache)
    with pytest.raises(ObtainError, match="longer than 1 s"):
        obtain._from_vendor(own_cache / "pulumi-0", said, limit=1)


def test_a_vendor_that_refuses_is_given_up_at_once_and_the_source_is_tried(
    own_cache: Path, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.getsockname()[1]}")
    monkeypatch.setenv("PATH", str(tmp_path))  # no Go either
    with pytest.raises(ObtainError, match="`go` is not on PATH"):
        obtain.obtain_pulumi(said)
    assert "Connection refused" in said.text
    assert "Building it from source instead." in said.text
    monkeypatch.setenv(obtain.ROUTE_VARIABLE, "vendor")
    with pytest.raises(ObtainError, match="The vendor's installer did not work"):
        obtain.obtain_pulumi(said)


_INSTALLER = """#!/bin/sh
# A stand-in for the vendor's installer: takes its arguments, brings two scripts.
while [ $# -gt 0 ]; do
  case "$1" in --install-root) root=$2 ;; --version) version=$2 ;; esac
  shift
done
mkdir -p "$root/bin"
printf '#!/bin/sh\\necho v%s\\n' "$version" > "$root/bin/pulumi"
HOST
chmod +x "$root"/bin/*
"""


class VendorDouble(http.server.BaseHTTPRequestHandler):
    """A proxy that answers for the vendor's host itself, with a certificate of the test's own."""

    context: ssl.SSLContext
    installer: str

    def do_CONNECT(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.connection = self.context.wrap_socket(self.connection, server_side=True)
        self.close_connection = False  # the client speaks HTTP/1.0 to a proxy
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)

    def do_GET(self) -> None:
        body = self.installer.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Say nothing."""


@pytest.fixture
def vendor_double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[VendorDouble]]:
    embedded._make_certificate(tmp_path, "get.pulumi.com")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    class Handler(VendorDouble):
        protocol_version = "HTTP/1.1"

    Handler.context = context
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        yield Handler
        server.shutdown()
        thread.join()


def test_the_vendors_installer_is_taken_where_it_works(
    own_cache: Path, said: Said, vendor_double: type[VendorDouble], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(obtain.ROUTE_VARIABLE, "vendor")
    vendor_double.installer = _INSTALLER.replace("HOST", 'cp /bin/true "$root/bin/pulumi-language-python"')
    toolchain = obtain.obtain_pulumi(said)
    assert toolchain.route == "vendor"
    assert toolchain.bin == own_cache / f"pulumi-{versions.PULUMI}/vendor/bin"
    assert obtain.obtain_pulumi(said) == toolchain
    assert len(said.lines) == 1


def test_an_installer_without_a_language_host_is_not_taken(
    own_cache: Path, said: Said, vendor_double: type[VendorDouble], monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor_double.installer = _INSTALLER.replace("HOST", "")
    monkeypatch.setenv(obtain.ROUTE_VARIABLE, "vendor")
    with pytest.raises(ObtainError, match="it did not install pulumi-language-python"):
        obtain.obtain_pulumi(said)
    assert not (own_cache / f"pulumi-{versions.PULUMI}/vendor").exists()


def test_the_module_says_what_is_missing(own_cache: Path, tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "synapse_media.engine"],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert answer.stderr.startswith("`go` is not on PATH")
    assert "Traceback" not in answer.stderr


def test_the_module_can_be_interrupted(own_cache: Path, tmp_path: Path) -> None:
    started = tmp_path / "started"
    # A stand-in for `go` that takes for ever.
    script(
        tmp_path / "bin/go",
        f'[ "$1" = version ] && echo go version go1.25.0 linux/amd64 && exit\ntouch {started}; exec sleep 100',
    )
    child = subprocess.Popen(
        [sys.executable, "-m", "synapse_media.engine"],
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert eventually(started.exists)
    child.send_signal(signal.SIGINT)
    _, shown = child.communicate(timeout=20)
    assert child.returncode == 130
    assert shown.splitlines()[-1].startswith("Interrupted.")
    assert "Traceback" not in shown
    assert list(own_cache.glob(".*staging*")) == []


def test_the_module_is_quiet_where_all_is_there(engine_toolchain: Toolchain) -> None:
    obtain.obtain_versitygw()
    answer = subprocess.run([sys.executable, "-m", "synapse_media.engine"], capture_output=True, text=True, check=True)
    assert (answer.stdout, answer.stderr) == ("", "")


def test_a_read_only_source_is_built(own_cache: Path, stand_in_module: GoProgram, said: Said, tmp_path: Path) -> None:
    frozen = tmp_path / "frozen"
    shutil.copytree(stand_in_module.source, frozen)
    for path in (*frozen.iterdir(), frozen):
        path.chmod(0o555 if path.is_dir() else 0o444)
    program = GoProgram("stand-in", frozen, ".")
    assert obtain.build_once(program, own_cache / "stand-in-1", said).exists()
    frozen.chmod(0o755)


def test_the_store_is_built_beside_the_engine_and_its_failure_is_the_whole_s(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    script(
        tmp_path / "go",
        '[ "$1" = version ] && echo go version go1.25.0 linux/amd64 && exit\necho no such module >&2; exit 1',
    )
    only_on_path(monkeypatch, tmp_path)
    asked: list[str] = []
    monkeypatch.setattr(engine_main, "obtain_pulumi", lambda: asked.append("engine"))
    monkeypatch.setattr("sys.argv", ["engine"])
    assert engine_main.main() == ObtainError.exit_code
    assert asked == ["engine"]
    assert "no such module" in capfd.readouterr().err
    monkeypatch.setattr(engine_main, "has_versitygw", lambda: True)
    monkeypatch.setattr(engine_main, "obtain_rclone", lambda: asked.append("rclone"))
    assert engine_main.main() == 0
    assert asked == ["engine", "engine", "rclone"]
    assert capfd.readouterr().err == ""


def test_a_build_is_one_line_on_a_terminal_and_a_few_elsewhere(
    said: Said, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    terminal, file = obtain._Progress(obtain.say_on_stderr), obtain._Progress(said)
    for number in range(1, 61):
        now = float(number)
        for progress in (terminal, file):
            progress.show(lambda shown=now: f"{shown:.0f} s")  # type: ignore[misc]
    terminal.clear()
    printed = capsys.readouterr().err
    assert printed == "".join(f"\r\x1b[K{number} s" for number in range(1, 61)) + "\r\x1b[K"
    assert said.lines == ["30 s", "60 s"]
