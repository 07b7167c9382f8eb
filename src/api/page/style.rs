//! The style sheet of the pages: one column, phone first, light and dark.

pub(super) const CSS: &str = "
:root{color-scheme:light dark;--bg:#f7f8fa;--card:#fff;--text:#1b2330;--dim:#667085;--line:#e3e7ee;--accent:#2563eb;
--ok:#15803d;--warn:#b45309;--bad:#b91c1c;--run:#2563eb}
@media(prefers-color-scheme:dark){:root{--bg:#0f141b;--card:#171e28;--text:#e6eaf0;--dim:#93a0b4;--line:#263040;
--accent:#7aa8ff;--ok:#4ade80;--warn:#fbbf24;--bad:#f87171;--run:#7aa8ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--text);font:16px/1.45 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;
-webkit-text-size-adjust:100%}
header{display:flex;justify-content:space-between;align-items:baseline;padding:.7rem 1rem;border-bottom:1px solid var(--line);
background:var(--card)}
header .home{font-weight:700;font-size:1.15rem;letter-spacing:.02em;color:var(--text);text-decoration:none}
.now{color:var(--dim);font-variant-numeric:tabular-nums}
main{max-width:60rem;margin:0 auto;padding:1rem}
section,dl{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.8rem 1rem;margin:0 0 1rem}
h1{font-size:1.25rem;margin:.2rem 0 1rem;overflow-wrap:anywhere}
h2{font-size:.95rem;margin:0 0 .5rem;font-weight:650}
.count{color:var(--dim);font-weight:400}
a{color:var(--accent);text-decoration:none}a:hover{text-decoration:underline}
p{margin:.3rem 0}
.dim,.sub,.count{color:var(--dim)}
.sub{display:block;font-size:.85rem;overflow-wrap:anywhere}
.warn{color:var(--warn)}.bad{color:var(--bad)}
.id{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.92em;overflow-wrap:anywhere}
ul{list-style:none;margin:0;padding:0}
ul.sources{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(17rem,100%),1fr));gap:.8rem}
ul.alerts li{border-left:.25rem solid var(--warn);padding:.15rem 0 .15rem .7rem;margin:.5rem 0;overflow-wrap:anywhere}
ul.alerts li.error,ul.alerts li.critical{border-color:var(--bad)}ul.alerts li.info{border-color:var(--accent)}
ul.plain li{padding:.2rem 0;overflow-wrap:anywhere}
.line{display:flex;justify-content:space-between;align-items:flex-start;gap:.6rem}
.line>:first-child{min-width:0;overflow-wrap:anywhere}
article{padding:.55rem 0;border-top:1px solid var(--line)}
h2+article{border-top:0;padding-top:0}
.bar{display:flex;align-items:center;gap:.7rem;margin:.35rem 0}
.percent{min-width:3.2rem;text-align:right;font-variant-numeric:tabular-nums;font-size:.9rem;white-space:nowrap}
progress{flex:1;width:0;min-width:0;height:.6rem;border:0;border-radius:.3rem;overflow:hidden;background:var(--line);
accent-color:var(--run);-webkit-appearance:none;appearance:none}
progress::-webkit-progress-bar{background:var(--line);border-radius:.3rem}
progress::-webkit-progress-value{background:var(--run);border-radius:.3rem}
progress::-moz-progress-bar{background:var(--run);border-radius:.3rem}
progress:indeterminate{background:repeating-linear-gradient(-45deg,var(--line) 0 .5rem,transparent .5rem 1rem);
border:1px solid var(--line)}
progress:indeterminate::-webkit-progress-bar{background:transparent}
progress:indeterminate::-moz-progress-bar{background:transparent}
.badge{display:inline-block;font-size:.78rem;line-height:1.5;padding:0 .5rem;border-radius:1rem;border:1px solid currentColor;
color:var(--dim);white-space:nowrap;font-weight:550;vertical-align:middle}
.badge.ok,.badge.completed,.badge.sent,.badge.resolved{color:var(--ok)}
.badge.running,.badge.initializing,.badge.completing{color:var(--run)}
.badge.failed,.badge.timeout,.badge.lost,.badge.stale,.badge.parked,.badge.dead,.badge.firing{color:var(--bad)}
.badge.partial,.badge.suspect,.badge.cancelling,.badge.paused{color:var(--warn)}
table{border-collapse:collapse;width:100%}
th{text-align:left;font-size:.8rem;color:var(--dim);font-weight:500}
th,td{padding:.4rem .6rem .4rem 0;border-top:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
tr:first-child>*{border-top:0}
th:last-child,td:last-child{padding-right:0}
.num{width:1%;text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
article.stale progress{filter:grayscale(1);opacity:.6}
h1~pre,h1~.bar{margin-bottom:1rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.3rem 0;font-size:.85rem;
font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
p.error{background:var(--card);border:1px solid var(--bad);border-left-width:.3rem;border-radius:.4rem;padding:.5rem .8rem;
margin:0 0 .8rem;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1rem}
dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}
.host span{white-space:nowrap;margin-right:1rem;color:var(--dim)}.host b{color:var(--text);font-weight:600}
code{font-size:.85em;overflow-wrap:anywhere}
footer{color:var(--dim);font-size:.85rem;padding:.2rem 0 1rem}
@media(max-width:32rem){body{font-size:15px}main{padding:.6rem}.wide{display:none}dl{grid-template-columns:1fr;gap:0}
dd{margin-bottom:.4rem}}
";
