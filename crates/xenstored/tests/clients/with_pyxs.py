"""What toolstacks written in Python do with pyxs, against the socket named on the command line."""

import errno
import sys

from pyxs.client import Client
from pyxs.exceptions import PyXSError


def refused(call, *arguments):
    """The errno that a call fails with."""
    try:
        call(*arguments)
    except PyXSError as error:
        return error.args[0]
    raise AssertionError("%s%r was not refused" % (call.__name__, arguments))


def nodes(client):
    client.write(b"/py/value", b"any text")
    assert client.read(b"/py/value") == b"any text"
    assert client.read(b"/py/none", b"default") == b"default"
    assert refused(client.read, b"/py/none") == errno.ENOENT
    client.mkdir(b"/py/directory")
    assert client.list(b"/py") == [b"value", b"directory"], client.list(b"/py")
    assert client.list(b"/py/directory") == []
    assert client.exists(b"/py/value") and not client.exists(b"/py/none")
    client.set_perms(b"/py/value", [b"b0", b"r7"])
    assert client.get_perms(b"/py/value") == [b"b0", b"r7"]
    client.delete(b"/py/value")
    assert not client.exists(b"/py/value")
    client.delete(b"/py/value")
    assert refused(client.delete, b"/py/no/where") == errno.ENOENT
    assert [path for path, _, _ in client.walk(b"/py")] == [b"/py", b"/py/directory"]


def domains(client):
    # Class attribute: whether this is the control domain, as the kernel says.
    Client.SU = True
    assert client.get_domain_path(7) == b"/local/domain/7"
    assert not client.is_domain_introduced(7)
    client.introduce_domain(7, 1, 2)
    client.introduce_domain(8, 1, 2)
    assert client.is_domain_introduced(7)
    client.set_target(7, 8)
    client.resume_domain(7)
    client.release_domain(7)
    assert not client.is_domain_introduced(7)
    assert refused(client.release_domain, 7) == errno.ENOENT


def transactions(client, other):
    client.transaction()
    client.write(b"/py/committed", b"yes")
    assert not other.exists(b"/py/committed")
    assert client.commit()
    assert other.read(b"/py/committed") == b"yes"

    client.transaction()
    client.write(b"/py/dropped", b"yes")
    client.rollback()
    assert not client.exists(b"/py/dropped")

    client.transaction()
    assert client.read(b"/py/committed") == b"yes"
    client.write(b"/py/depends", b"on it")
    other.write(b"/py/committed", b"no longer")
    assert not client.commit(), "what it read was changed"
    assert not client.exists(b"/py/depends")

    # The other one's change matters to nobody here.
    client.transaction()
    client.write(b"/py/mine", b"1")
    other.write(b"/py/theirs", b"1")
    assert client.commit()
    client.write(b"/py/committed", b"yes")


def monitors(client, other):
    with client.monitor() as monitor:
        monitor.watch(b"/py/watched", b"a token")
        monitor.watch(b"@releaseDomain", b"releases")
        events = monitor.wait()
        assert sorted([next(events), next(events)]) == [
            (b"/py/watched", b"a token"),
            (b"@releaseDomain", b"releases"),
        ]
        assert refused(client.ack, 4, b"/py/watched\x00", b"a token\x00") == errno.EEXIST
        other.write(b"/py/watched/below", b"1")
        assert next(events) == (b"/py/watched/below", b"a token")
        other.transaction()
        other.write(b"/py/watched/one", b"1")
        other.write(b"/py/watched/two", b"1")
        other.commit()
        assert [next(events)[0], next(events)[0]] == [b"/py/watched/one", b"/py/watched/two"]
        other.release_domain(8)
        assert next(events) == (b"@releaseDomain", b"releases")
    assert monitor.watched == set()


def main(socket):
    with Client(unix_socket_path=socket) as client, Client(unix_socket_path=socket) as other:
        nodes(client)
        domains(client)
        transactions(client, other)
        monitors(client, other)
    print("all checked")


main(sys.argv[1])
