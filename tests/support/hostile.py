"""Inputs that try to run, fetch, hide or break something in a page that shows them.

``MARK`` is set by any script that runs; ``TRAP`` is an address that nobody may ask.
"""

# ruff: noqa: E501
from __future__ import annotations

__all__ = ["HOSTILE", "MARK", "TRAP"]

MARK = "window.__ran"
TRAP = "http://127.0.0.1:9/trap"
_RUN = f"{MARK}=1"

HOSTILE: dict[str, str] = {
    # scripts
    "script": f"<script>{_RUN}</script>",
    "script-upper": f"<SCRIPT>{_RUN}</SCRIPT>",
    "script-src": f"<script src={TRAP}.js></script>",
    "script-split": f"<scr<script>ipt>{_RUN}</scr</script>ipt>",
    "script-module": f"<script type=module>import '{TRAP}.js'; {_RUN}</script>",
    "script-in-key": f"pending/4242-<script>{_RUN}</script>.pdf",
    "close-everything": f"</td></tr></table></details></section></main><script>{_RUN}</script>",
    "close-style": f"</style><script>{_RUN}</script><style>",
    "close-pre": f"</pre></code><script>{_RUN}</script>",
    "close-title": f"</title></head><script>{_RUN}</script>",
    "comment": f"--><script>{_RUN}</script><!--",
    "open-comment": "<!-- everything after this vanishes",
    "cdata": f"<![CDATA[<script>{_RUN}</script>]]>",
    "noscript": f'<noscript><p title="</noscript><img src=x onerror={_RUN}>">',
    "entity-script": f"&lt;script&gt;{_RUN}&lt;/script&gt;",
    "double-entity": f"&amp;lt;script&amp;gt;{_RUN}&amp;lt;/script&amp;gt;",
    "numeric-entity": f"&#60;script&#62;{_RUN}&#60;/script&#62;",
    # event handlers
    "img-onerror": f"<img src=x onerror={_RUN}>",
    "img-onload": f'<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" onload={_RUN}>',
    "attribute-break": f'" onmouseover="{_RUN}" autofocus onfocus="{_RUN}" x="',
    "attribute-break-single": f"' onmouseover='{_RUN}' autofocus onfocus='{_RUN}' x='",
    "attribute-break-backtick": f"` onmouseover=`{_RUN}`",
    "body-onload": f"<body onload={_RUN}>",
    "details-ontoggle": f"<details open ontoggle={_RUN}>x</details>",
    "input-autofocus": f"<input autofocus onfocus={_RUN}>",
    "marquee": f"<marquee onstart={_RUN}>x</marquee>",
    "video": f"<video><source onerror={_RUN}></video>",
    "animation": f"<style>@keyframes x{{}}</style><p style='animation:x 1s' onanimationstart={_RUN}>",
    # SVG, MathML, mermaid
    "svg-onload": f"<svg onload={_RUN}></svg>",
    "svg-script": f"<svg><script>{_RUN}</script></svg>",
    "svg-use": f'<svg><use href="{TRAP}#x"/></svg>',
    "svg-foreign": f"<svg><foreignObject><iframe srcdoc='<script>top.{_RUN[7:]}</script>'></svg>",
    "svg-animate": f"<svg><a><animate attributeName=href values=javascript:{_RUN} /><text>x</text></a>",
    "svg-data": "data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9ImFsZXJ0KDEpIi8+",
    "math": f'<math><maction actiontype="statusline#javascript:{_RUN}">x</maction></math>',
    "mxss": f'<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror={_RUN}&gt;">',
    "mermaid": f'graph TD; A["<img src=x onerror={_RUN}>"] --> B; click A "javascript:{_RUN}"',
    # links
    "javascript-link": f'<a href="javascript:{_RUN}">click</a>',
    "javascript-link-tab": f'<a href="java\tscript:{_RUN}">click</a>',
    "javascript-plain": f"javascript:{_RUN}",
    "markdown-link": f"[click](javascript:{_RUN})",
    "markdown-image": f"![x]({TRAP}.png)",
    "markdown-reference": f"[x]: {TRAP}\n[click][x]",
    "data-link": f'<a href="data:text/html,<script>{_RUN}</script>">click</a>',
    "vbscript": '<a href="vbscript:msgbox(1)">click</a>',
    "meta-refresh": f'<meta http-equiv="refresh" content="0;url={TRAP}">',
    "base": f'<base href="{TRAP}/">',
    "link-sheet": f'<link rel=stylesheet href="{TRAP}.css">',
    "prefetch": f'<link rel=prefetch href="{TRAP}"><link rel=dns-prefetch href="{TRAP}">',
    # things that fetch
    "img-fetch": f"<img src={TRAP}.png>",
    "img-srcset": f'<img srcset="{TRAP}.png 1x">',
    "iframe": f"<iframe src={TRAP}></iframe>",
    "iframe-srcdoc": "<iframe srcdoc='<script>parent.__ran=1</script>'></iframe>",
    "object": f"<object data={TRAP}></object><embed src={TRAP}>",
    "form": f'<form action="{TRAP}"><input name=q autofocus><button>go</button></form>',
    "form-attribute": f'<button formaction="javascript:{_RUN}">go</button>',
    # styles
    "style-import": f"<style>@import '{TRAP}.css';</style>",
    "style-background": f'<p style="background:url({TRAP}.png)">x</p>',
    "style-overlay": '<div style="position:fixed;inset:0;background:#fff;z-index:9999">All is well</div>',
    "style-hide": "<style>*{display:none!important}</style>",
    "style-wide": '<p style="width:99999px;min-width:99999px">x</p>',
    "style-huge": '<p style="font-size:99999px;letter-spacing:999px">x</p>',
    "style-expression": f'<p style="width:expression({_RUN})">x</p>',
    "class-spoof": '<p class="verdict"><span class="first good">Verdict ok</span></p>',
    "id-clobber": '<a id="timeline"></a><img name="documentElement"><form id="body"></form>',
    # characters
    "bidi-override": "pending/\u202efdp.exe-4242",
    "bidi-isolate": "\u2066\u2067\u2068safe\u2069 \u202drovasbo",
    "bidi-marks": "a\u200eb\u200fc\u061cd",
    "zero-width": "pen\u200bding\u2060/\ufeff4242\u00ad.pdf",
    "null-and-controls": "a\x00b\x07c\x1bd[31mred\x7f\x9b",
    "lone-surrogate": "a\ud800b\udfffc",
    "line-separators": "one\u2028two\u2029three\x85four\r\nfive\rsix",
    "tags": "flag\U000e0067\U000e0062\U000e007f",
    "stacked-marks": "Z" + "\u0301\u0302\u0303\u0304\u0305" * 60 + "algo",
    "ansi": "\x1b[31mred\x1b[0m \x1b]8;;http://127.0.0.1:9/trap\x07link\x1b]8;;\x07",
    "long-word": "x" * 5_000,
    "long-word-emoji": "📦" * 3_000,
    "many-lines": "line\n" * 2_000,
    "non-breaking": "wide\u00a0" * 800,
    "right-to-left": "تأخر تسليم الملصقات " * 30,
    # templates and formats
    "jinja": "{{ 7 * 7 }}{% for x in range(10**9) %}{{ x }}{% endfor %}",
    "jinja-escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "jinja-comment": "{# gone #}{% raw %}",
    "format-braces": "{0} {name!r:>99999999} {}",
    "percent": "%s %n %(name)s %99999999d",
    "dollar": "$x^2$ $$\\frac{1}{0}$$ \\(\\href{javascript:alert(1)}{x}\\)",
    "latex": "\\href{javascript:alert(1)}{click} \\unicode{x} \\require{html}\\style{}{}",
    "csv": '=HYPERLINK("http://127.0.0.1:9/trap","x")',
    "path": "../../../../etc/passwd",
    "json": '{"__proto__": {"polluted": true}}',
    "sql": "'; DROP TABLE shipments; --",
}
