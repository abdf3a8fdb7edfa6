# Copyright The modelsec Authors
# SPDX-License-Identifier: Apache-2.0
"""Asks for one file through a unix socket, as a user by number, and prints the status, or why it cannot."""
import http.client
import os
import socket
import sys

path, key, user = sys.argv[1:]
os.setgid(int(user))
os.setuid(int(user))
connection = http.client.HTTPConnection("model")
connection.sock = socket.socket(socket.AF_UNIX)
try:
    connection.sock.connect(path)
except PermissionError:
    print("cannot connect")
    sys.exit()
connection.request("GET", "/model/" + key)
response = connection.getresponse()
print(response.status, len(response.read()))
