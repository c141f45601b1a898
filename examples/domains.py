"""Mail domains of the example: which of them the local mail server refuses, and how.

The traffic addresses people there and the mail server treats them accordingly.
All end in `.example`, a name that is reserved and leads nowhere.
"""

GOOD = ("mail.example", "post.example", "inbox.example")
CLOSED = "closed.example"
"""Every recipient is refused for good (550)."""
FULL = "full.example"
"""Every recipient is refused for now (452), each time anew."""
FLAKY = "flaky.example"
"""Now and then a recipient is refused for now (451)."""
