"""The one way to wait here: ask again until it is so, and give up at a deadline."""

import time

ASK_AGAIN_S = 0.02


def wait_until(condition, what, deadline_s=10.0, ask_again_s=ASK_AGAIN_S):
    """Returns the first true answer of `condition`; `what` names the wait when it fails."""
    end = time.monotonic() + deadline_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {deadline_s} s")
        time.sleep(ask_again_s)
