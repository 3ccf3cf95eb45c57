#!/usr/bin/env python3
"""Runs a prepared statement on a MariaDB and reads its rows to nowhere, in the binary protocol: what the
server can deliver. libmariadb connects and executes; the rest are bytes of a socket, not even parsed.

  MYSQL_PWD=… mariadb_drain.py PORT USER DATABASE QUERY      prints how many bytes came
"""
import ctypes, os, re, select, socket, sys

# A packet of 5 bytes of payload, 0xfe: the end of the rows, unless more bytes follow.
END = re.compile(rb"\x05\x00\x00.\xfe....\Z", re.DOTALL)


def main(port, user, database, query):
    client = ctypes.CDLL("libmariadb.so.3")
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_ulong
    client.mysql_init.restype = client.mysql_real_connect.restype = client.mysql_stmt_init.restype = pointer
    client.mysql_init.argtypes = client.mysql_stmt_init.argtypes = client.mysql_stmt_execute.argtypes = [pointer]
    client.mysql_real_connect.argtypes = [pointer, text, text, text, text, ctypes.c_uint, text, number]
    client.mysql_stmt_prepare.argtypes = [pointer, text, number]
    for f in (client.mysql_error, client.mysql_stmt_error):
        f.argtypes, f.restype = [pointer], text
    client.mysql_get_socket.argtypes = [pointer]
    link = client.mysql_init(None)
    password = os.environ.get("MYSQL_PWD", "").encode()
    if not client.mysql_real_connect(link, b"127.0.0.1", user.encode(), password, database.encode(), int(port),
                                     None, 0):
        sys.exit(client.mysql_error(link).decode())
    statement, query = client.mysql_stmt_init(link), query.encode()
    if client.mysql_stmt_prepare(statement, query, len(query)) or client.mysql_stmt_execute(statement):
        sys.exit(client.mysql_stmt_error(statement).decode())
    wire = socket.socket(fileno=client.mysql_get_socket(link))
    wire.setblocking(True)
    block, size = bytearray(256 * 1024), 0
    while n := wire.recv_into(block):
        size += n
        if END.search(block, max(0, n - 9), n) and not select.select([wire], [], [], 0.05)[0]:
            break
    else:
        sys.exit("the server has closed the connection")
    print(size, flush=True)
    os._exit(0)  # the connection is in no state to be closed politely


if __name__ == "__main__":
    main(*sys.argv[1:])
