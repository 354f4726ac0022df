"""A connection that stays open and is spoken to line by line."""

from contextlib import contextmanager

from command_line import connect


class Talk:
    """One client: bytes out, then as much back as the answer has."""

    def __init__(self, connection):
        self.connection = connection
        self._unread = b""

    def send(self, lines):
        self.connection.sendall(lines)

    def until(self, end):
        """All that comes back up to and with `end`; what follows stays for the next call."""
        searched = 0
        while (at := self._unread.find(end, max(0, searched - len(end)))) < 0:
            searched = len(self._unread)
            piece = self.connection.recv(1 << 16)
            if not piece:
                raise ConnectionError(f"closed before {end!r}: {self._unread[-200:]!r}")
            self._unread += piece
        cut = at + len(end)
        answer, self._unread = self._unread[:cut], self._unread[cut:]
        return answer

    def ask(self, lines, end=b"\r\n"):
        self.send(lines)
        return self.until(end)

    def stats(self, what=b""):
        """The lines `STAT name value` as a dict, in their order."""
        answer = self.ask(b"stats %s\r\n" % what if what else b"stats\r\n", b"END\r\n")
        lines = [line.split(" ", 2) for line in answer.decode().splitlines()]
        return {name: value for word, name, value in (line for line in lines if len(line) == 3)}


@contextmanager
def talk(address):
    with connect(address) as connection:
        yield Talk(connection)
