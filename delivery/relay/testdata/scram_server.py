# An SMTP server that takes logins by SCRAM-SHA-256-PLUS alone: TLS is OpenSSL's, SCRAM
# is GNU SASL's. Arguments: certificate, key, version of TLS, password.
import base64, ctypes, socket, sys, threading
from OpenSSL import SSL

PASSWORD, UNIQUE, EXPORTER = 3, 18, 25
OK, MORE = 0, 1

sasl = ctypes.CDLL("libgsasl.so.18")
sasl.gsasl_property_fast.restype = ctypes.c_char_p


def log_in(conn, lines, version, initial):
    """Returns whether GNU SASL is content, and how the dialogue began."""
    library, session = ctypes.c_void_p(), ctypes.c_void_p()
    assert sasl.gsasl_init(ctypes.byref(library)) == OK
    assert sasl.gsasl_server_start(library, b"SCRAM-SHA-256-PLUS", ctypes.byref(session)) == OK
    if version == "1.3":
        kind, data = EXPORTER, conn.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
    else:
        kind, data = UNIQUE, conn.get_peer_finished()
    sasl.gsasl_property_set(session, kind, base64.b64encode(data))
    sasl.gsasl_property_set(session, PASSWORD, sys.argv[4].encode())
    said, answer = initial, ctypes.c_char_p()
    while True:
        status = sasl.gsasl_step64(session, said.encode(), ctypes.byref(answer))
        if status not in (OK, MORE):
            return False
        if status == OK and not answer.value:
            return True
        conn.sendall(b"334 " + (answer.value or b"") + b"\r\n")
        said = next(lines)
        if status == OK:
            return said == ""


def read_lines(conn):
    buffer = b""
    while True:
        while b"\r\n" in buffer:
            line, buffer = buffer.split(b"\r\n", 1)
            yield line.decode()
        try:
            buffer += conn.recv(65536)
        except SSL.Error:
            return


def serve(conn, version):
    lines = read_lines(conn)
    say = lambda text: conn.sendall(text.encode() + b"\r\n")
    user = False
    say("220 gsasl.test ESMTP")
    for line in lines:
        verb = line[:4].upper()
        if verb == "EHLO":
            say("250-gsasl.test\r\n250 AUTH SCRAM-SHA-256-PLUS")
        elif verb == "AUTH":
            words = line.split(" ")
            initial = "" if len(words) < 3 else words[2]
            user = words[1] == "SCRAM-SHA-256-PLUS" and log_in(conn, lines, version, initial)
            say("235 2.7.0 ok" if user else "535 5.7.8 no")
        elif verb == "QUIT":
            say("221 2.0.0 bye")
            return
        elif not user:
            say("530 5.7.0 who are you")
        elif verb == "DATA":
            say("354 go on")
            while next(lines) != ".":
                pass
            say("250 2.0.0 taken")
        else:
            say("250 2.0.0 ok")


context = SSL.Context(SSL.TLS_METHOD)
context.use_certificate_chain_file(sys.argv[1])
context.use_privatekey_file(sys.argv[2])
bound = SSL.TLS1_3_VERSION if sys.argv[3] == "1.3" else SSL.TLS1_2_VERSION
context.set_min_proto_version(bound)
context.set_max_proto_version(bound)
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)


def handle(client):
    conn = SSL.Connection(context, client)
    conn.set_accept_state()
    try:
        conn.do_handshake()
        serve(conn, sys.argv[3])
        conn.shutdown()
    except (SSL.Error, OSError, StopIteration):
        pass
    client.close()


while True:
    client, _ = listener.accept()
    threading.Thread(target=handle, args=(client,), daemon=True).start()
