"""POST standard input to an URL:  python -m supervisor.webhook URL SECONDS

A process of its own: a name server or a peer that never answers can be ended from outside, a thread can't.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request


def main(arguments: list[str]) -> int:
    url, seconds = arguments
    headers = {"Content-Type": "application/json", "User-Agent": "outlive"}
    request = urllib.request.Request(url, data=sys.stdin.buffer.read(), headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=float(seconds)) as answer:
            answer.read(1)
    except (OSError, ValueError) as error:  # URLError and HTTPError are OSErrors
        print(f"the webhook failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
