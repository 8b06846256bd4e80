"""Numbers that both sides must agree on. All sizes are bytes, all times seconds."""

PROTOCOL_VERSION = 1

MAX_KEY_BYTES = 4096
"""An encoded key; keys are names and ids."""

MAX_CHANGE_BYTES = 64 * 2**20
"""One record: a put, or all changes of a transaction."""

MAX_MESSAGE_BYTES = 2**30
"""MAXMSGSIZE of the server's sockets, per message part. A fold or a whole state is one record; none is ever cut."""

MAX_FOLD_BYTES = MAX_MESSAGE_BYTES - 2**20
"""A record that stands for many."""

MAX_SOCKET_PATH_BYTES = 107
"""sun_path holds 108 bytes with its NUL; ZeroMQ would fail late and obscurely."""

SESSION_SILENCE = 5.0
"""A session not heard for so long counts as gone, and another host may open its namespace."""

CONFIRM_WAIT = 2.0
"""Longest time that a confirm request is held by the server; also the heartbeat of an idle session."""
