"""What `umux up` is told: by flags, by a TOML file, or both (a flag wins).

Every key and value is checked here; what is wrong is named with what is allowed.
"""

import argparse
import tomllib
from pathlib import Path
from typing import Any, Final

import attrs

from umuxstack.cli import values
from umuxstack.cli.common import USAGE, Failure
from umuxstack.core.config import PoolPolicy, StackConfig, TcpPolicy
from umuxstack.core.errors import LocalError
from umuxstack.core.units import Micros
from umuxstack.host import make_config

SERVICES: Final = ("echo", "hello")

# Fields of StackConfig that stand at the top of the file under their own names.
_STACK: Final = (
    "scheme",
    "fixed_port",
    "hop_limit",
    "icmp_rate",
    "icmp_burst",
    "path_mtu_lifetime",
    "das_lifetime",
    "candidates",
    "client_grain_linger",
    "udp_idle",
    "retiring",
    "telescope",
    "memory",
)


@attrs.frozen(slots=True)
class Settings:
    """Where and how one stack runs. `config` is the core's part of it."""

    config: StackConfig
    tun: str | None
    name: str | None
    socket: str | None
    namespace: str | None
    mtu: int
    offload: bool
    kernel_address: str | None
    key_file: str | None
    group: str | None
    users: tuple[str, ...]
    serve: tuple[str, ...]
    cc: str | None
    capture: str | None
    qlog: str | None
    record: str | None


# What a key of the file may hold: a type, or a list of texts.
_KEYS: Final[dict[str, Any]] = {
    "prefix": str,
    "shared": list,
    "unified_peers": list,
    "answer": bool,
    "tun": str,
    "name": str,
    "socket": str,
    "namespace": str,
    "mtu": int,
    "offload": bool,
    "kernel_address": str,
    "key_file": str,
    "group": str,
    "users": list,
    "serve": list,
    "cc": str,
    "capture": str,
    "qlog": str,
    "record": str,
    "pool": dict,
    "tcp": dict,
    **{name: attrs.fields_dict(StackConfig)[name].type for name in _STACK},
}


def settings(arguments: argparse.Namespace) -> Settings:
    """The flags over the file over the defaults. `Failure` with the usage exit code for whatever cannot be."""
    given = _from_file(Path(arguments.config)) if arguments.config else {}
    for name in _KEYS:
        flag = getattr(arguments, name, None)
        if flag is not None and flag != []:
            given[name] = flag
    if "prefix" not in given:
        raise Failure("no prefix: which addresses are the stack's?", "umux up --prefix 2001:db8:1::/64", USAGE)
    for service in given.get("serve", ()):
        if service not in SERVICES:
            raise Failure(f"there is no service {service!r}", f"--serve knows {' and '.join(SERVICES)}", USAGE)
    core: dict[str, Any] = {name: given[name] for name in _STACK if name in given}
    try:
        config = make_config(
            given["prefix"],
            shared=given.get("shared", ()),
            unified_peers=given.get("unified_peers", ()),
            silence=not given.get("answer", False),
            pool=PoolPolicy(**given.get("pool", {})),
            tcp=TcpPolicy(**given.get("tcp", {})),
            **core,
        )
    except LocalError as error:
        raise Failure(str(error), "`umux up --help` explains the options", USAGE) from error
    return Settings(
        config=config,
        tun=given.get("tun"),
        name=given.get("name"),
        socket=given.get("socket"),
        namespace=given.get("namespace"),
        mtu=given.get("mtu", 1500),
        offload=given.get("offload", True),
        kernel_address=given.get("kernel_address"),
        key_file=given.get("key_file"),
        group=given.get("group"),
        users=tuple(given.get("users", ())),
        serve=tuple(dict.fromkeys(given.get("serve", ()))),
        cc=given.get("cc"),
        capture=given.get("capture"),
        qlog=given.get("qlog"),
        record=given.get("record"),
    )


def _from_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}", "", USAGE) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Failure(f"{path} is not TOML: {error}", "", USAGE) from error
    given = {name: _value(path, name, value, _KEYS) for name, value in table.items()}
    for section, policy in (("pool", PoolPolicy), ("tcp", TcpPolicy)):
        if section in given:
            known = {field.name: field.type for field in attrs.fields(policy)}
            given[section] = {name: _value(path, name, value, known) for name, value in given[section].items()}
    return given


def _value(path: Path, name: str, value: Any, known: dict[str, Any]) -> Any:
    if name not in known:
        raise Failure(f"{path}: there is no setting {name!r}", f"known are: {', '.join(sorted(known))}", USAGE)
    kind = known[name]
    if kind is Micros:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return Micros(int(value * 1_000_000))
        if isinstance(value, str):
            return values.time(value, f"{path}: {name}")
        raise Failure(f"{path}: {name} is not a time", "write seconds, or a text like '200ms' or '10m'", USAGE)
    if kind is list:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
        raise Failure(f"{path}: {name} is not a list of texts", f'write {name} = ["…", "…"]', USAGE)
    if type(value) is not kind:
        words = {str: "a text", int: "a whole number", bool: "true or false", dict: f"a section [{name}]"}
        raise Failure(f"{path}: {name} is {value!r}; it must be {words[kind]}", "", USAGE)
    return value
