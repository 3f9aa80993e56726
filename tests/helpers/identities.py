"""An identity of age for tests, as it is and with a passphrase."""

AGE = "AGE-SECRET-KEY-1XZZMUV3J6NY4QE3XYTMASW8UD50C6JELNZAU02NWVCNXMYN0YT9Q7YY3MH"
RECIPIENT = "age1d9xqncdps3j6rsa0kjd7eh74rmc5kd9qan9z04k0urhfkrdmkf5q4j9hs6"
PASSPHRASE = "correct horse"
# The identity, encrypted with that passphrase, and with so little work that it opens at once.
ENCRYPTED = """\
-----BEGIN AGE ENCRYPTED FILE-----
YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCBabk8wUmFIb2MvUzU1aGMw
QjRpaW1BIDEKZGxBRTVlNG5kdHgrMU1UNFFlbWpQWGU5L0JJYWxsUFFleGlEeE5o
MmRHZwotLS0gVlpMcmk2aVpXMFo4WjlyUFRnZER4a0hTT1Y1L20ydUNvcjh2R2hK
UFZ6WQoOTHZRCIsx/w8yygsWRA4aFjlzxSeZUc03vUvm9wprFLfCFVIT2zmlASjI
wrzTlieI+rX5ubfWdxhLY3lGFYCmzTklgerfomVXG8mw1bH1avQSAinM5uhwtUZf
Mq5u+inRLYKQyFmGGXxwXg9cnsfsJ7i2ZSSLkGtJ8r3v
-----END AGE ENCRYPTED FILE-----
"""
