"""Each production of the language once, as the forks of packetdrill know it: all are read, and written again."""

import re

import pytest

from umuxstack.conformance.format import format_script
from umuxstack.conformance.parser import parse

PACKETS = """
0 < (ect0) S 0:0(0) win 1
0 < [ect0, flowlabel 0x12345] S 0:0(0) win 1
0 < [tos 0xb8] S 0:0(0) win 1
0 < (class 0x20) S 0:0(0) win 1
0 < (hlim 5) S 0:0(0) win 1
0 > [tos 0x2, flowlabel 0x9] . 1:1(0) ack 1
0 < 3000 > 80 S 0:0(0) win 1
0 < - 1:1(0) win 9
0 < FSRPUEWA. 1:1(0) ack 9 win 9 urg 3
0 > F.0 1:1(0) ack 1
0 > S.1 0:0(0) ack 1 <...>
0 > R. 0:0(0)! ack 2 win 0
0 < S 0:0(0) win 9 <mss 1000,nop,wscale 3,sackOK,TS val 1 ecr 0,eol>
0 < . 1:1(0) ack 1 win 9 <md5 000102030405060708090a0b0c0d0e0f,FO,FO aabb,FOEXP,FOEXP 12ab,sack 1:2 3:4>
0 < F. 1:1(0) ack 1 win 9 <nop,nop,md5 valid>/udp(1 > 9811)
0 < S 0:0(0) win 9 <mss 1000> {mut ip ihl}
0 < S 0:0(0) win 9 <mss 1000> {mut tcp 3-5; trun tcp 3 5; ins ip source_port}
0 < udp (10)
0 > udp 5 > 6 (10)
0 < icmp unreachable frag_needed mtu 1200 [1:1461(1460)]
0 < icmp unreachable host_unreachable [udp (100)]
0 < [1:1(0)] icmp parameter_problem unknown_next_header
0 < icmp echo_request id 77 [raw (100)]
0 > icmp echo_reply id 77 [raw (100)]
"""
WRAPPED = """
0 < gre: . 1:1(0) ack 1 win 5
0 < ipv4 192.0.2.1 > 192.0.2.2: gre flags[none], sum 0, off 0, key=0x1, seq 5: . 1:1(0) ack 1 win 5
0 < ipv4 [tos 0x1] 192.0.2.1 > 192.0.2.2 : GREv0 flags[key present,sequence# present] sum 0x1 off 0 key 3 seq 9: udp (1)
0 < ipv6 fd00::1 > fd00::2: mpls (label 0, tc 0, ttl 0) (label 1048575, tc 7, [S], ttl 255): . 1:1(0) ack 1 win 5
0 < ipv4 192.0.2.1 > 192.0.2.2: ipv6 ::1 > ::ffff:192.0.2.4: udp (100)
0 < ipv6 fd00::1 > fd00::2 : psp spi 12, vc 0x123: . 1:1001(1000) ack 1 win 123
0 > encap psp spi 9 P. 1:5(4) ack 1
"""
MULTIPATH = """
0 < addr[c0] > addr[s0] S 0:0(0) win 9 <mss 1460,mpcapable v1 flags[flag_h] nokey>
0 > > addr[s1] S 0:0(0) <mss 1460,mp_join_syn backup=1 address_id=0 token=sha256_32(key)>
0 < . 1:1(0) ack 1 win 9 <mpcapable v1 flags [flag_b,flag_h] key[a=2,b] mpcdatalen 4, nop, nop>
0 > . 1:1(0) ack 9 <add_address address_id=1 addr[ep=inet_addr("198.51.100.2")] port=9 hmac=auto,dss dack8=9 nocs fin>
0 > R. 1:1(0) ack 9 <mp_reset 0>
0 > . 1:1(0) ack 9 <remove_address address_id=[10,11], mp_prio backup=0, mp_fastclose>
"""
TIMES = """
* > . 1:1(0) ack 1
0.1~0.5 > . 1:1(0) ack 1
+.1 ~ +.5 > . 1:1(0) ack 1
0...0.5 connect(3, ..., ...) = 0
+0 ... 0.5 connect(3, ..., ...) = 0
+ 1.00 > . 1:1(0) ack 1
"""
CALLS = """
0 poll([{fd=4, events=POLLIN|POLLOUT, revents=POLLIN}, {fd=5, events=POLLIN}], 2, 0) = 1
0 epoll_wait(4, {events=EPOLLIN, fd=3}, 1, 0) = 1
0 epoll_ctl(4, EPOLL_CTL_ADD, 3, {events=EPOLLIN|EPOLLET, ptr=3}) = 0
0 epoll_ctl(4, EPOLL_CTL_ADD, 3, {events=EPOLLIN, u64=0x3}) = 0
0 setsockopt(3, SOL_SOCKET, SO_LINGER, {onoff=1, linger=0}, 8) = 0
0 setsockopt(3, SOL_TCP, 5, "re" "no", 4) = 0
0 setsockopt(3, SOL_TCP, 5, "re\\"no"..., 4) = 0
0 setsockopt(3, A, B, {(label 1, tc 2, [S], ttl 3)}, 4) = 0
0 setsockopt(3, A, B, {flags[none], sum 0, off 0, key 0, seq 0}, 4) = 0
0 bind(3, {sa_family = AF_INET, sin_port = htons(5), sin_addr = inet_addr("192.0.2.1")}, ...) = 0
0 foo(inet_addr("192.0.2.1"), inet6_addr("::1"), [], -5, 0xff, NULL) = 0
0 sendmsg(4, {msg_name(...)=..., msg_iov(2)=[{..., 10},{..., 20}], msg_flags=MSG_OOB|MSG_MORE, msg_control=[]}, 0) = 30
0 foo([{cmsg_level=SOL_SOCKET, cmsg_type=X, cmsg_data={scm_sec=0,scm_nsec=600}}]) = 0
0 foo({ee_errno=ENOMSG,ee_origin=X,ee_type=0,ee_code=0,ee_info=Y,ee_data=9}) = 0
0 fcntl(3, F_GETFL) = 0x2 (flags O_RDWR)
0 connect(3, ..., ...) = -1 EINPROGRESS (it's under way)
0 foo() = -1 // EINPROGRESS
"""
LAYOUT = r"""
0 `echo "a \` b"`
0 %{
x = 1
print(x) }%
0 /* a comment */ < S 0:0(0) win 5 // another
0 < S 0:0(0) win 5 /* many
lines ** and stars */ <mss 5>
"""


def events(*tables: str) -> list[str]:
    return [event for table in tables for event in re.split(r"\n(?=[0*+])", table.strip("\n"))]


@pytest.mark.parametrize("text", events(PACKETS, WRAPPED, MULTIPATH, TIMES, CALLS, LAYOUT))
def test_an_event_of_each_kind(text: str) -> None:
    script = parse(text)
    assert len(script.events) == 1
    assert parse(format_script(script)) == script


@pytest.mark.parametrize(
    "head",
    [
        '--define=CC="reno"\n0 foo(CC) = 0',
        "--define=PROTO=IPPROTO_TCP\n0 foo(PROTO) = 0",
        "--define=TIDY=`rm -f x`\n0 TIDY",
        '--local_ip=::1\n--remote_ip=fe80::1\n--so_flags="x y"\n0 foo() = 0',
        "--send_omit_free\n`first`\n0 foo() = 0\n`last`",
    ],
)
def test_what_stands_around_the_events(head: str) -> None:
    assert len(parse(head).events) == 1


def test_the_kinds_that_nobody_plays_here_are_named() -> None:
    named = {
        name: [construct for event in events(table) for _, construct in parse(event).unsupported()]
        for name, table in (("multipath", MULTIPATH), ("packets", PACKETS))
    }
    assert named["multipath"] == [
        "MPTCP address",
        "MPTCP address",
        "TCP option mpcapable",
        "TCP option add_address",
        "TCP option dss",
        "TCP option mp_reset",
        "TCP option remove_address",
        "TCP option mp_prio",
        "TCP option mp_fastclose",
    ]
    assert named["packets"] == ["packet fuzzing", "packet fuzzing"]
