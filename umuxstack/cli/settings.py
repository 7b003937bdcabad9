"""What `umux up` is told: by flags, by a TOML file, or both (a flag wins).

Every key and value is checked here; what is wrong is named with what is allowed.
"""

import argparse
import math
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from tun import netns
from tun.device import MTU_MAX, MTU_MIN, check_name
from tun.errors import TunError
from umuxstack.cli import values
from umuxstack.cli.common import USAGE, Failure
from umuxstack.core.config import PoolPolicy, StackConfig, TcpPolicy
from umuxstack.core.entropy import Entropy
from umuxstack.core.errors import LocalError
from umuxstack.core.stack import Stack
from umuxstack.core.units import Micros
from umuxstack.core.wire.address import in_prefix
from umuxstack.driver.congestion_loader import register_spec
from umuxstack.host import make_config
from umuxstack.keyfile import examine

_LARGEST_FILE: Final = 1 << 20
NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
SERVICES: Final = ("echo", "hello")

# Fields of StackConfig that stand at the top of the file under their own names.
_STACK: Final = (
    "scheme",
    "fixed_port",
    "hop_limit",
    "extension_headers",
    "header_options",
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
    core: int | None
    kernel_address: str | None
    key_file: str | None
    group: str | None
    users: tuple[str, ...]
    serve: tuple[str, ...]
    algorithms: Mapping[str, type]
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
    "core": int,
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
    for name, value in given.items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise Failure(f"{name.replace('_', '-')} is empty", "write its value, or leave it away", USAGE)
    if "prefix" not in given:
        raise Failure("no prefix: which addresses are the stack's?", "umux up --prefix 2001:db8:1::/64", USAGE)
    for service in given.get("serve", ()):
        if service not in SERVICES:
            raise Failure(f"there is no service {service!r}", f"--serve knows {' and '.join(SERVICES)}", USAGE)
    core: dict[str, Any] = {name: given[name] for name in _STACK if name in given}
    if ":" in str(given.get("tcp", {}).get("congestion", "")):  # [tcp] in a file: an algorithm of one's own as well
        given.setdefault("cc", given["tcp"].pop("congestion"))
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
        algorithms: dict[str, type] = {}
        if "cc" in given:
            name = register_spec(given["cc"], algorithms)
            config = attrs.evolve(config, tcp=attrs.evolve(config.tcp, congestion=name))
        # What the stack itself would say of all this, it says now, before anything is made.
        Stack(config, Entropy(bytes(32)), Micros(0), congestion=algorithms)
    except LocalError as error:
        raise Failure(str(error), "`umux up --help` explains the options", USAGE) from error
    _check_place(given, config)
    return Settings(
        config=config,
        tun=given.get("tun"),
        name=given.get("name"),
        socket=given.get("socket"),
        namespace=given.get("namespace"),
        mtu=given.get("mtu", 1500),
        offload=given.get("offload", True),
        core=given.get("core"),
        kernel_address=given.get("kernel_address"),
        key_file=given.get("key_file"),
        group=given.get("group"),
        users=tuple(given.get("users", ())),
        serve=tuple(dict.fromkeys(given.get("serve", ()))),
        algorithms=algorithms,
        capture=given.get("capture"),
        qlog=given.get("qlog"),
        record=given.get("record"),
    )


def _check_place(given: dict[str, Any], config: StackConfig) -> None:
    """Names and numbers of the device, and of what belongs to it."""
    if "mtu" in given:
        values.whole(given["mtu"], "the mtu", MTU_MIN, MTU_MAX)
    if "core" in given:
        cores = sorted(os.sched_getaffinity(0))
        if given["core"] not in cores or len(cores) < 2:
            raise Failure(
                f"--core {given['core']}: this process may run on {', '.join(map(str, cores))}",
                "name one of several cores: the kernel receives on the others",
                USAGE,
            )
    try:
        if "tun" in given:
            check_name(given["tun"])
        if "namespace" in given:
            netns.check_name(given["namespace"])
    except TunError as error:
        raise Failure(error.strerror or str(error), "", USAGE) from None
    name = given.get("name", "x")
    if not NAME.fullmatch(name):
        raise Failure(
            f"{name!r} cannot be a stack's name: it is part of a file's name",
            "use letters, digits, '-', '_' or '.', 64 at most, and no '.' at the beginning",
            USAGE,
        )
    if given.get("key_file") is not None and config.scheme != "sealed":
        raise Failure("a key file is for the scheme 'sealed'", f"leave --scheme {config.scheme} away", USAGE)
    if "record" in given and "key_file" in given:
        raise Failure("a run with a key file cannot be recorded", "leave --record away, or the other one", USAGE)
    for key in ("key_file", "capture", "record"):
        path = Path(given.get(key, "-"))
        if str(path) != "-" and (path.is_dir() or not path.absolute().parent.is_dir()):
            words = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
            raise Failure(f"--{key.replace('_', '-')} {path}: {words}", "name a file in a folder that exists", USAGE)
    if "key_file" in given:
        examine(Path(given["key_file"]))
    logs = Path(given.get("qlog", "."))
    if logs.exists() and not logs.is_dir():
        raise Failure(f"--qlog {logs}: it is no folder", "each session gets a file of its own there", USAGE)
    if "kernel_address" in given:
        kernel = values.address(given["kernel_address"].partition("/")[0], "--kernel-address")
        if in_prefix(kernel, config.prefix, config.prefix_length) or kernel in config.shared:
            raise Failure(
                f"--kernel-address: {given['kernel_address']} is one of the stack's own addresses",
                "the kernel needs another one: choose it outside of the prefix, like fd00:75::1",
                USAGE,
            )


def _from_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        if len(data) > _LARGEST_FILE:
            raise Failure(f"{path} has more than {_LARGEST_FILE} bytes; it is no settings file", "", USAGE)
        table = tomllib.loads(data.decode())
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
            return values.time(f"{value:f}" if math.isfinite(value) else str(value), f"{path}: {name}")
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
