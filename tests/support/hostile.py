"""Inputs that try to run, fetch, hide or break something in a page that shows them.

``MARK`` is set by any script that runs; ``TRAP`` is an address that nobody may ask.
"""

# ruff: noqa: E501
from __future__ import annotations

MARK = "window.__ran"
TRAP = "http://127.0.0.1:9/trap"
_RUN = f"{MARK}=1"

HOSTILE: dict[str, str] = {
    # scripts
    "script": f"<script>{_RUN}</script>",
    "script-src": f"<script src={TRAP}.js></script>",
    "script-in-key": f"pending/4242-<script>{_RUN}</script>.pdf",
    "close-everything": f"</td></tr></table></details></section></main><script>{_RUN}</script>",
    "close-style": f"</style><script>{_RUN}</script><style>",
    "comment": f"--><script>{_RUN}</script><!--",
    "open-comment": "<!-- everything after this vanishes",
    "cdata": f"<![CDATA[<script>{_RUN}</script>]]>",
    "noscript": f'<noscript><p title="</noscript><img src=x onerror={_RUN}>">',
    "entity-script": f"&lt;script&gt;{_RUN}&lt;/script&gt;",
    # event handlers
    "img-onerror": f"<img src=x onerror={_RUN}>",
    "img-onload": f'<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" onload={_RUN}>',
    "attribute-break": f'" onmouseover="{_RUN}" autofocus onfocus="{_RUN}" x="',
    "body-onload": f"<body onload={_RUN}>",
    "details-ontoggle": f"<details open ontoggle={_RUN}>x</details>",
    "input-autofocus": f"<input autofocus onfocus={_RUN}>",
    "animation": f"<style>@keyframes x{{}}</style><p style='animation:x 1s' onanimationstart={_RUN}>",
    # SVG, MathML, mermaid
    "svg-onload": f"<svg onload={_RUN}></svg>",
    "svg-use": f'<svg><use href="{TRAP}#x"/></svg>',
    "svg-foreign": f"<svg><foreignObject><iframe srcdoc='<script>top.{_RUN[7:]}</script>'></svg>",
    "svg-animate": f"<svg><a><animate attributeName=href values=javascript:{_RUN} /><text>x</text></a>",
    "math": f'<math><maction actiontype="statusline#javascript:{_RUN}">x</maction></math>',
    "mxss": f'<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror={_RUN}&gt;">',
    "mermaid": f'graph TD; A["<img src=x onerror={_RUN}>"] --> B; click A "javascript:{_RUN}"',
    # links
    "javascript-link": f'<a href="javascript:{_RUN}">click</a>',
    "markdown-link": f"[click](javascript:{_RUN})",
    "markdown-image": f"![x]({TRAP}.png)",
    "data-link": f'<a href="data:text/html,<script>{_RUN}</script>">click</a>',
    "meta-refresh": f'<meta http-equiv="refresh" content="0;url={TRAP}">',
    "base": f'<base href="{TRAP}/">',
    "link-sheet": f'<link rel=stylesheet href="{TRAP}.css">',
    # things that fetch
    "img-fetch": f"<img src={TRAP}.png>",
    "iframe": f"<iframe src={TRAP}></iframe>",
    "iframe-srcdoc": "<iframe srcdoc='<script>parent.__ran=1</script>'></iframe>",
    "object": f"<object data={TRAP}></object><embed src={TRAP}>",
    "form": f'<form action="{TRAP}"><input name=q autofocus><button>go</button></form>',
    # styles
    "style-import": f"<style>@import '{TRAP}.css';</style>",
    "style-overlay": '<div style="position:fixed;inset:0;background:#fff;z-index:9999">All is well</div>',
    "style-hide": "<style>*{display:none!important}</style>",
    "style-wide": '<p style="width:99999px;min-width:99999px">x</p>',
    "class-spoof": '<p class="verdict"><span class="first good">Verdict ok</span></p>',
    "id-clobber": '<a id="timeline"></a><img name="documentElement"><form id="body"></form>',
    # characters
    "bidi-override": "pending/\u202efdp.exe-4242",
    "bidi-isolate": "\u2066\u2067\u2068safe\u2069 \u202drovasbo",
    "zero-width": "pen\u200bding\u2060/\ufeff4242\u00ad.pdf",
    "null-and-controls": "a\x00b\x07c\x1bd[31mred\x7f\x9b",
    "lone-surrogate": "a\ud800b\udfffc",
    "tags": "flag\U000e0067\U000e0062\U000e007f",
    "stacked-marks": "Z" + "\u0301\u0302\u0303\u0304\u0305" * 60 + "algo",
    "ansi": "\x1b[31mred\x1b[0m \x1b]8;;http://127.0.0.1:9/trap\x07link\x1b]8;;\x07",
    "long-word": "x" * 5_000,
    "many-lines": "line\n" * 2_000,
    "non-breaking": "wide\u00a0" * 800,
    "right-to-left": "تأخر تسليم الملصقات " * 30,
    # templates and formats
    "jinja": "{{ 7 * 7 }}{% for x in range(10**9) %}{{ x }}{% endfor %}",
    "jinja-escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "format-braces": "{0} {name!r:>99999999} {}",
    "percent": "%s %n %(name)s %99999999d",
    "latex": "\\href{javascript:alert(1)}{click} \\unicode{x} \\require{html}\\style{}{}",
    "csv": '=HYPERLINK("http://127.0.0.1:9/trap","x")',
    "path": "../../../../etc/passwd",
}
