"""Texts that would run a script, or change a page, where they are taken for more than texts.

One for each way out of a text or an attribute that browsers know; OWASP's cross-site scripting
filter evasion cheat sheet lists the ways.
"""

from __future__ import annotations

TAKEN = "document.title='taken over';alert(1)"
HOSTILE = [
    f"<script>{TAKEN}</script>",
    f'"><script>{TAKEN}</script>',
    f"'><script>{TAKEN}</script>",
    f"</title><script>{TAKEN}</script>",
    f"</pre><script>{TAKEN}</script>",
    f"</textarea><script>{TAKEN}</script>",
    f"</style><script>{TAKEN}</script>",
    f"</option></select><script>{TAKEN}</script>",
    f'<img src=x onerror="{TAKEN}">',
    f"<img src=x onerror={TAKEN}//",
    f'"><img src=x onerror="{TAKEN}">',
    f'<svg onload="{TAKEN}">',
    f"<svg><script>{TAKEN}</script></svg>",
    f'<svg><animate onbegin="{TAKEN}" attributeName=x dur=1s>',
    f'<math><mtext><img src=x onerror="{TAKEN}">',
    f'<body onload="{TAKEN}">',
    f'<details open ontoggle="{TAKEN}">',
    f'<input autofocus onfocus="{TAKEN}">',
    f'" autofocus onfocus="{TAKEN}" x="',
    f"' autofocus onfocus='{TAKEN}' x='",
    f'<iframe srcdoc="<script>{TAKEN}</script>"></iframe>',
    f'<iframe src="javascript:{TAKEN}"></iframe>',
    f'<a href="javascript:{TAKEN}">x</a>',
    f"javascript:{TAKEN}",
    f"data:text/html,<script>{TAKEN}</script>",
    f'<form action="javascript:{TAKEN}"><button>x</button></form>',
    f'<object data="javascript:{TAKEN}"></object>',
    f'<meta http-equiv="refresh" content="0;url=javascript:{TAKEN}">',
    f'<link rel=stylesheet href="javascript:{TAKEN}">',
    '<base href="http://127.0.0.1:1/">',
    f"{{{{ cycler.__init__.__globals__ }}}}{{% raw %}}<script>{TAKEN}</script>",
    "${7*7}#{7*7}<%= 7*7 %>",
    f"&lt;script&gt;{TAKEN}&lt;/script&gt;",
    f"<!--><script>{TAKEN}</script>-->",
    f"<ScRiPt>{TAKEN}</sCrIpT>",
    f'\u202e<b onmouseover="{TAKEN}">\u2028right to left',
]
