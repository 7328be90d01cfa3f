"""Lets no answer get lost in pynetdicom, and nobody wait there for ever."""
import threading

from pynetdicom.association import Association


def keep_answers(assoc):
    """pynetdicom's reactor is told to pause before each request, but one that is just waking from
    the pause before takes the next message off the queue, answer or not, and drops answers. Whoever
    polls is the reactor; it gets requests alone. Nor does it get the None that stands for the end of
    the association, which is for whoever waits for an answer, and for each that asks after him."""
    take, messages = assoc.dimse.get_msg, assoc.dimse.msg_queue

    def get_msg(block=False):
        if block:
            got = take(block)
            if got[1] is None:
                messages.put(got)
            return got
        with messages.mutex:
            first = messages.queue[0][1] if messages.queue else None
        if first is None or getattr(first, "MessageIDBeingRespondedTo", None) is not None:
            return None, None
        return take(block)

    assoc.dimse.get_msg = get_msg


def _is_paused(assoc):
    return assoc.__dict__.get("_kill", False) or assoc.__dict__.get("reactor_pauses", False)


def _set_paused(assoc, pauses):
    if threading.current_thread() is assoc:
        assoc.__dict__["reactor_pauses"] = pauses


# Whoever sends a request, or releases, waits without end for `_is_paused`. It says that the reactor
# pauses, but each N-EVENT-REPORT is served by a thread of its own which sets it too, and at its end says
# that a reactor which does pause does not: then both wait for each other (pynetdicom #820, and so still in
# 3.0.4). An association is its reactor's thread: no other is believed, and one that was killed pauses.
Association._is_paused = property(_is_paused, _set_paused)
