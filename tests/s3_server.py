"""A server of S3 on loopback, moto's, and the environment that leads what reads S3 to it as a user's does."""

from collections.abc import Iterator
from contextlib import contextmanager

from moto.server import ThreadedMotoServer

# Of a machine that has accounts of its own.
REMOVED = ("AWS_PROFILE", "AWS_SESSION_TOKEN")


@contextmanager
def running_server() -> Iterator[str]:
    """The server's address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def environment_of(address: str) -> dict[str, str]:
    """What leads boto3, s3fs and DVC to the server."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
