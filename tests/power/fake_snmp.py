"""A PDU's SNMP agent on loopback, made of pysnmp: v2c by community, v3 by user and password."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

from pysnmp.carrier.asyncio.dgram import udp
from pysnmp.entity import config
from pysnmp.entity.engine import SnmpEngine
from pysnmp.entity.rfc3413 import cmdrsp, context
from pysnmp.proto import rfc1902, rfc1905
from pysnmp.smi.instrum import AbstractMibInstrumController


class FakePdu(AbstractMibInstrumController):
    """Answers for the objects in `values` (OID without a leading dot to an SNMP value) until stopped."""

    def __init__(
        self, values: dict[str, Any], community: str, user: str, password: str, authentication: Any = None
    ) -> None:
        self.values = values
        self.requests = 0
        self._community = community
        self._user = user
        self._password = password
        self._authentication = authentication or config.USM_AUTH_HMAC96_SHA
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.start()

    def read_variables(self, *asked: Any, **_: Any) -> list[Any]:
        self.requests += 1
        return [(oid, self.values.get(str(oid), rfc1905.noSuchInstance)) for oid, _ in asked]

    def start(self) -> None:
        up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(up)), daemon=True)
        self._thread.start()
        assert up.wait(20)

    def stop(self) -> None:
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join(10)
        self._loop = None

    async def _serve(self, up: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        engine = SnmpEngine()
        config.add_transport(engine, udp.DOMAIN_NAME, udp.UdpTransport().open_server_mode(("127.0.0.1", self.port)))
        config.add_v1_system(engine, "area", self._community)
        config.add_vacm_user(engine, 2, "area", "noAuthNoPriv", (1, 3, 6))
        config.add_v3_user(engine, self._user, self._authentication, self._password)
        config.add_vacm_user(engine, 3, self._user, "authNoPriv", (1, 3, 6))
        served = context.SnmpContext(engine)
        served.unregister_context_name(rfc1902.OctetString(b""))
        served.register_context_name(rfc1902.OctetString(b""), self)
        cmdrsp.GetCommandResponder(engine, served)
        await asyncio.sleep(0.05)  # the socket is bound by a task of the loop
        up.set()
        await self._ended.wait()
        engine.close_dispatcher()
        await asyncio.sleep(0.05)


@contextlib.contextmanager
def pdu(
    values: dict[str, Any], community: str, user: str, password: str, authentication: Any = None
) -> Iterator[FakePdu]:
    fake = FakePdu(values, community, user, password, authentication)
    try:
        yield fake
    finally:
        fake.stop()
