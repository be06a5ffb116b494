"""The transport on a simulated network: what a socket does, without sockets, threads or time.

A ``Network`` connects pollers as libzmq's ROUTER and DEALER do, on a schedule and with random numbers that
come from outside, so that one seed is one run. Messages are encoded, copied and decoded as on a real wire.

What holds, as on real sockets:

* a link keeps what it was given until its hub is there, and reconnects by itself;
* messages of a connection keep their order and take some time; several may be there at once;
* a connection that breaks takes along what was on its way, in both directions (a *lost tail*); neither
  side is told. Until the link is connected anew its hub raises ``PeerUnreachableError``;
* what is in an inbox stays readable, also of a connection that has ended;
* a second connection of one identity replaces the first;
* a path that is blocked holds messages back; when it is open again they arrive, or the connection has broken;
* a peer that does not read fills its queue, and then takes nothing in.

Not simulated: bytes (frames arrive whole), and memory shared between processes.
"""
