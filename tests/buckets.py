"""Object stores on loopback, for tests and for ``benchmarks/faults.py``."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def s3() -> Iterator[str]:
    """A URI in a bucket of an S3 server; the bucket and its content go with the server."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
        client = boto3.client(
            "s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", **keys
        )
        client.create_bucket(Bucket="bucket")
        yield f"s3://key:secret@bucket/root?scheme=http&region=us-east-1&endpoint_override={host}:{port}"
    finally:
        server.stop()


_GOOGLE = """
import http.server, sys
from gcp_storage_emulator.server import create_server
http.server.HTTPServer = http.server.ThreadingHTTPServer  # or one slow reader stops all others
create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="bucket").run()
"""


@contextmanager
def google() -> Iterator[str]:
    """The same with Google's protocol, in a process of its own: its client would wait for this one's lock."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", _GOOGLE, str(port)])
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/storage/v1/b/bucket", timeout=5)
                break
            except OSError:
                time.sleep(0.1)
        yield f"gs://anonymous@bucket/root?scheme=http&endpoint_override=127.0.0.1%3A{port}"
    finally:
        server.terminate()
        server.wait()


SERVERS = {"s3": s3, "gs": google}
