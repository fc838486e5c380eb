"""librdkafka's mock cluster through ctypes, on the very library that the confluent-kafka wheel brings.

What belongs here: finding the library, the C signatures, one class. Nothing here knows the wire protocol.
"""

import ctypes
from collections.abc import Iterator
from ctypes.util import find_library
from pathlib import Path

from data_platform.errors import ConfigurationError, PlatformError

BROKER_ID = 1
REBALANCE_DELAY_MS = 100
_RD_KAFKA_PRODUCER = 0
_ERRSTR_SIZE = 512
# Exported since librdkafka 2.13; the other symbols are older.
_NEWEST_SYMBOL = "rd_kafka_mock_broker_set_host_port"


def _candidates() -> Iterator[str]:
    """Where the library may be: the wheel's folder on Linux, on macOS, what this process has loaded, the system's."""
    import confluent_kafka

    package = Path(confluent_kafka.__file__).parent
    for folder in (package.parent / "confluent_kafka.libs", package / ".dylibs"):
        yield from sorted(str(path) for path in folder.glob("librdkafka*"))
    maps = Path("/proc/self/maps")
    if maps.exists():
        words = {line.split()[-1] for line in maps.read_text().splitlines()}
        yield from sorted(word for word in words if "librdkafka" in word)
    system = find_library("rdkafka")
    if system:
        yield system


def load_library() -> ctypes.CDLL:
    """The librdkafka of confluent-kafka, signatures set. Raises ConfigurationError when none has the mock cluster."""
    tried: list[str] = []
    for candidate in _candidates():
        try:
            library = ctypes.CDLL(candidate)
        except OSError as error:
            tried.append(f"{candidate}: {error}")
            continue
        if hasattr(library, _NEWEST_SYMBOL):
            return _with_signatures(library)
        tried.append(f"{candidate}: does not export {_NEWEST_SYMBOL}")
    found = "\n  ".join(tried or ["confluent-kafka brought no library"])
    raise ConfigurationError(
        f"no librdkafka with the mock cluster was found\n  {found}",
        hint="install confluent-kafka as a wheel: pip install --only-binary :all: 'confluent-kafka>=2.16'",
    )


def _with_signatures(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, text, short, integer = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int16, ctypes.c_int
    signatures = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_set": (integer, [pointer, text, text, text, ctypes.c_size_t]),
        "rd_kafka_new": (pointer, [integer, pointer, text, ctypes.c_size_t]),
        "rd_kafka_destroy": (None, [pointer]),
        "rd_kafka_err2str": (text, [integer]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, integer]),
        "rd_kafka_mock_cluster_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_topic_create": (integer, [pointer, text, integer, integer]),
        "rd_kafka_mock_set_apiversion": (integer, [pointer, short, short, short]),
        "rd_kafka_mock_set_controller_id": (integer, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_host_port": (integer, [pointer, ctypes.c_int32, text, integer]),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_push_request_errors_array": (None, [pointer, short, ctypes.c_size_t, ctypes.POINTER(integer)]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class MockCluster:
    """One mock broker inside this process, listening on a loopback port of its own choice."""

    def __init__(self) -> None:
        """Start it. Raises ConfigurationError without the library, PlatformError when librdkafka refuses."""
        self._library = load_library()
        why = ctypes.create_string_buffer(_ERRSTR_SIZE)
        configuration = self._library.rd_kafka_conf_new()
        # The handle is no client: without this it warns at every start that it has no bootstrap.servers.
        self._library.rd_kafka_conf_set(configuration, b"log_level", b"3", why, _ERRSTR_SIZE)
        self._handle: int | None = self._library.rd_kafka_new(_RD_KAFKA_PRODUCER, configuration, why, _ERRSTR_SIZE)
        if not self._handle:
            raise PlatformError(f"librdkafka did not start: {why.value.decode()}")
        self._cluster: int | None = self._library.rd_kafka_mock_cluster_new(self._handle, 1)
        if not self._cluster:
            raise PlatformError("librdkafka did not start its mock cluster")
        # 3 s by default, as on a real broker: every test with a consumer group would wait for it.
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, REBALANCE_DELAY_MS)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port the mock broker itself listens on."""
        host, port = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode().rsplit(":", 1)
        return host, int(port)

    def advertise(self, host: str, port: int) -> None:
        """Tell clients to come to `host:port`, and that the broker is the controller (admin calls ask for one)."""
        self._check(self._library.rd_kafka_mock_broker_set_host_port(self._cluster, BROKER_ID, host.encode(), port))
        self._check(self._library.rd_kafka_mock_set_controller_id(self._cluster, BROKER_ID))

    def create_topic(self, name: str, partitions: int) -> int:
        """Create a topic; returns Kafka's error code, 0 when it was made."""
        return int(self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1))

    def limit_versions(self, api_key: int, lowest: int, highest: int) -> None:
        """Offer only these versions of an API to clients."""
        self._check(self._library.rd_kafka_mock_set_apiversion(self._cluster, api_key, lowest, highest))

    def fail_next(self, api_key: int, error_code: int) -> None:
        """Answer the next request of `api_key` with `error_code`; 0 lets it pass."""
        codes = (ctypes.c_int * 1)(error_code)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, api_key, 1, codes)

    def close(self) -> None:
        """Stop the broker; what it held is gone."""
        if self._cluster:
            self._library.rd_kafka_mock_cluster_destroy(self._cluster)
            self._cluster = None
        if self._handle:
            self._library.rd_kafka_destroy(self._handle)
            self._handle = None

    def _check(self, code: int) -> None:
        if code:
            raise PlatformError(f"mock cluster: {self._library.rd_kafka_err2str(code).decode()}")
