"""Which objects of a message are CSV drops."""

from data_platform.clients.inbox import MessageError, StoredObject, parse_message

SUFFIXES = (".csv", ".csv.gz")


def parse_drops(body: str) -> list[StoredObject]:
    """The CSV drops of one message; none for S3's test event. Raises MessageError saying what is wrong."""
    drops = parse_message(body)
    for drop in drops:
        if not drop.key.endswith(SUFFIXES):
            raise MessageError(f"{drop.key!r} is no {' or '.join(SUFFIXES)} file")
    return drops
