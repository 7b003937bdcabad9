"""The control server: clients of the UNIX socket, one task each.

Owns who may come (UM-29) and how much each may use. A client that sends
garbage, floods, stays silent or does not read is closed; it cannot disturb the
stack, another client, or the server. What the verbs do is `verbs.py`.
"""

import errno
import logging
import os
from typing import Any, Final

import attrs
import trio

from umuxstack.control.connection import ClientGone, Connection, Reply
from umuxstack.control.handover import Handover
from umuxstack.control.layout import ProtocolError
from umuxstack.control.messages import MAGIC, VERSION, Hello, Request, Welcome
from umuxstack.control.place import BoundSocket, Caller, caller
from umuxstack.control.protocol import (
    HEADER,
    ErrorCode,
    SessionFailed,
    WrongVersion,
    decode_request,
    encode_error,
    error_code,
    printable,
)
from umuxstack.control.quota import Limits, Quota
from umuxstack.control.verbs import Verbs
from umuxstack.core.errors import LocalError
from umuxstack.driver.runtime import Host

logger = logging.getLogger("umuxstack.control")

SOFTWARE: Final = "umuxstack"
ACCEPT_PAUSE: Final = 0.1  # seconds to wait when the process has no descriptor left


@attrs.frozen(slots=True)
class Access:
    """Who else may give orders, besides root and the user whom the stack runs as."""

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()

    def allows(self, caller: Caller) -> bool:
        return caller.uid in (0, os.geteuid()) or caller.uid in self.uids or not self.gids.isdisjoint(caller.groups)


class ControlServer:
    """Serves one host's control socket. `run` is its task; `shutdown_requested` is set by the SHUTDOWN verb."""

    def __init__(
        self,
        host: Host,
        bound: BoundSocket,
        *,
        name: str,
        link_name: str = "",
        access: Access | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.shutdown_requested = trio.Event()
        self._name = name
        self._bound = bound
        self._access = access or Access()
        self._limits = limits or Limits()
        self._clients = Quota(self._limits.clients, self._limits.clients_per_user)
        self._handover = Handover(self._limits)
        self._verbs = Verbs(
            host,
            name=name,
            link_name=link_name,
            handover=self._handover,
            events=self._limits.events,
            shutdown=self.shutdown_requested.set,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; removes the socket's file then, and ends the sessions that were handed out."""
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._handover.run)
                listening = trio.socket.from_stdlib_socket(self._bound.socket)
                task_status.started()
                while True:
                    connection = await self._accept(listening)
                    if connection is not None:
                        nursery.start_soon(self._serve, connection)
        finally:
            self._bound.close()

    async def _accept(self, listening: trio.socket.SocketType) -> trio.socket.SocketType | None:
        try:
            connection, _ = await listening.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                logger.warning("a control client cannot be accepted: %s", error.strerror)
                await trio.sleep(ACCEPT_PAUSE)
            elif error.errno != errno.ECONNABORTED:
                raise
            return None
        return connection

    async def _serve(self, raw: trio.socket.SocketType) -> None:
        with raw:
            who = caller(raw)
            connection = Connection(raw, self._limits.send_patience)
            try:
                await self._admit(connection, who)
            except ClientGone:
                pass
            except Exception:
                logger.exception("a control client met a bug: uid %d pid %d", who.uid, who.pid)

    async def _admit(self, connection: Connection, who: Caller) -> None:
        if not self._access.allows(who):
            logger.warning("refused: uid %d pid %d may not use this control socket", who.uid, who.pid)
            message = f"uid {who.uid} may not give orders to the stack {self._name}; run as root or as its owner"
            await connection.send(encode_error(0, 0, ErrorCode.FORBIDDEN, message))
        elif not self._clients.take(who.uid):
            logger.warning("refused: uid %d pid %d: too many control clients", who.uid, who.pid)
            await connection.send(encode_error(0, 0, ErrorCode.BUSY, "the stack has too many control clients now"))
        else:
            try:
                await self._converse(connection, who)
            finally:
                self._clients.give_back(who.uid)

    async def _converse(self, connection: Connection, who: Caller) -> None:
        data = b""
        try:
            with trio.move_on_after(self._limits.hello_patience):
                data = await connection.receive()
            if not data or not await self._greet(connection, data):
                return
            while True:
                data = await connection.receive()
                tag, request = decode_request(data)
                await self._answer(connection, Reply(connection, request.VERB, tag), request, who)
        except ProtocolError as error:
            logger.info("closed: uid %d pid %d broke the protocol: %s", who.uid, who.pid, error)
            verb, _, _, tag, _ = HEADER.unpack_from(data.ljust(HEADER.size, b"\0"))
            await connection.send(encode_error(verb, tag, ErrorCode.PROTOCOL, str(error)))

    async def _greet(self, connection: Connection, data: bytes) -> bool:
        tag, request = decode_request(data)
        if not isinstance(request, Hello) or request.magic != MAGIC:
            raise ProtocolError("the first message is not HELLO")
        reply = Reply(connection, request.VERB, tag)
        if not request.lowest <= VERSION <= request.highest:
            text = f"the stack speaks version {VERSION} of the control protocol, not {request.lowest}-{request.highest}"
            await reply.fail(ErrorCode.VERSION, WrongVersion(text))
            return False
        welcome = Welcome(
            version=VERSION,
            pid=os.getpid(),
            uid=os.geteuid(),
            name=printable(self._name, 96),
            software=printable(SOFTWARE, 24),
        )
        await reply.send([welcome])
        return True

    async def _answer(self, connection: Connection, reply: Reply, request: Request[Any], who: Caller) -> None:
        try:
            quick = self._verbs.quick(request, who)
            if quick is not None:
                await reply.send(quick)
            else:
                await connection.while_there(lambda: self._verbs.lengthy(request, reply, who))
        except (ProtocolError, ClientGone):
            raise
        except LocalError as error:
            await reply.fail(error_code(error), error)
        except SessionFailed as error:
            await reply.fail(ErrorCode.SESSION_FAILED, error)
        except Exception as error:
            logger.exception("%s met a bug: uid %d pid %d", request.VERB.name, who.uid, who.pid)
            await reply.fail(ErrorCode.INTERNAL, error)
