"""All tests run on virtual CPU devices, and do not touch the user's cache folder."""

import gc
import os
import resource
import shutil
import signal
import tempfile

import pytest

from pipeline.runtime import signals
from tests.support import environment, quick

os.environ["JAX_PLATFORMS"] = "cpu"
# Tests share one cache of all compiled programs, also with the processes that they start.
COMPILED = "JAX_COMPILATION_CACHE_DIR"
OWNER = COMPILED not in os.environ
if OWNER:
    os.environ[COMPILED] = tempfile.mkdtemp(prefix="compiled-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["XLA_FLAGS"] = environment.xla_flags(64)
gc.set_threshold(200_000, 20, 100)  # tracing makes millions of objects, but few cycles


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="the change's tests first, for 80 s")


def pytest_configure(config):
    if config.getoption("--quick"):
        config.pluginmanager.register(quick.Quick(config.rootpath))


@pytest.fixture(autouse=True)
def handlers_of_signals():
    """Puts back what a test, or a command that it ran in this process, did with signals."""
    before = [(number, signal.getsignal(number)) for number in signals.SIGNALS]
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before:
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pytest_unconfigure():
    if OWNER:
        shutil.rmtree(os.environ[COMPILED], ignore_errors=True)


@pytest.fixture
def signals_of_terminals():
    """Lets processes receive signals, even if the tests run under nohup or in a background."""
    numbers = (signal.SIGHUP, signal.SIGQUIT, signal.SIGINT)
    handlers = (signal.SIG_DFL, signal.SIG_DFL, signal.default_int_handler)
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def full_disk():
    """Limits the size of files to 4 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
