"""Lets no answer get lost in pynetdicom."""


def keep_answers(assoc):
    """pynetdicom's reactor is told to pause before each request, but one that is just waking from
    the pause before takes the next message off the queue, answer or not, and drops answers. Whoever
    polls is the reactor; it gets requests alone."""
    take, messages = assoc.dimse.get_msg, assoc.dimse.msg_queue

    def get_msg(block=False):
        if not block:
            with messages.mutex:
                first = messages.queue[0][1] if messages.queue else None
            if getattr(first, "MessageIDBeingRespondedTo", None) is not None:
                return None, None
        return take(block)

    assoc.dimse.get_msg = get_msg
