"""How a page looks, and the one script in it. Nothing is loaded from elsewhere: the page says so to the browser."""

from __future__ import annotations

import base64
import hashlib

COLOURS = 7
"""Lines told apart by colour; from the eighth on by how they are dashed as well."""

# The colours are those of Okabe and Ito, which people of any colour vision tell apart, darker or lighter by background.
CSS = """
:root{color-scheme:light dark;--page:#fff;--ink:#1b1f24;--soft:#59636e;--line:#d1d9e0;--panel:#f6f8fa;--raw:#9fb3c8;
--good:#1a7f37;--bad:#b42318;--warn:#8a5a00;--warnbg:#fff8e5;--badbg:#fff1ef;
--c0:#0072b2;--c1:#d55e00;--c2:#007d5c;--c3:#b0568c;--c4:#b67f00;--c5:#2b8fc4;--c6:#333}
@media (prefers-color-scheme:dark){:root{--page:#0f1318;--ink:#e6ebf0;--soft:#9aa7b4;--line:#333c46;--panel:#181e25;
--raw:#4a5a6b;--good:#57c777;--bad:#ff8a7a;--warn:#e6b450;--warnbg:#2a2413;--badbg:#2e1816;
--c0:#5ab4e6;--c1:#ff8f4d;--c2:#3cc79a;--c3:#e396c4;--c4:#e6b832;--c5:#9ad4f5;--c6:#d5dbe1}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1240px;margin:0 auto;padding:20px 16px 60px}
h1{font-size:1.6rem;line-height:1.25;margin:0;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2.2rem 0 .7rem;padding-bottom:.3rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:1.4rem 0 .5rem;overflow-wrap:anywhere}
p{margin:.4rem 0}.soft{color:var(--soft)}small,.small{font-size:.85rem}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.86em}
code{overflow-wrap:anywhere}
.status{font-weight:600}.succeeded{color:var(--good)}.failed{color:var(--bad)}.partial,.interrupted{color:var(--warn)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(135px,1fr));gap:10px;margin:1.1rem 0}
.tile{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:9px 12px}
.tile b{display:block;font-size:1.15rem;font-weight:600;overflow-wrap:anywhere}
.tile span{color:var(--soft);font-size:.82rem}
.note{border:1px solid var(--line);border-left:4px solid var(--warn);background:var(--warnbg);border-radius:6px;
padding:8px 12px;margin:.8rem 0;overflow-wrap:anywhere}
.note.error{border-left-color:var(--bad);background:var(--badbg)}
.note ul{margin:0;padding-left:1.1rem}
dl{display:grid;grid-template-columns:minmax(90px,max-content) 1fr;gap:.25rem 1.2rem;margin:0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse}
.list{width:100%;margin:.3rem 0 .9rem}.list th{text-align:left;font-weight:600;color:var(--soft);font-size:.85rem}
.list th,.list td{padding:5px 14px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
.list .number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.list td{white-space:nowrap}
.chart{margin:.4rem 0}.chart svg{display:block;width:100%;min-width:540px;height:auto}
.chart text{font:12px system-ui,sans-serif;fill:var(--soft)}
.chart .title{fill:var(--ink)}
.axis{stroke:var(--line);stroke-width:1}.grid-line{stroke:var(--line);stroke-width:.6}
.raw{fill:none;stroke:var(--raw);stroke-width:.8;stroke-linejoin:round}
.curve{fill:none;stroke-width:2.2;stroke-linejoin:round;stroke-linecap:round}
.save{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 4;opacity:.75}.save-mark{fill:var(--soft)}
.probe{fill:transparent}.probe:hover{fill:var(--soft);fill-opacity:.22}
.dot{stroke:var(--page);stroke-width:1}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:.2rem 0 .6rem;padding:0;list-style:none;font-size:.88rem}
.legend li{display:flex;align-items:center;gap:7px;overflow-wrap:anywhere}
.legend svg,.swatch{flex:none;width:34px;height:10px}
.legend .square{flex:none;width:12px;height:12px;border-radius:3px}
.bars rect{stroke:none}.bars g:hover{opacity:.75}
.meter{position:relative;height:14px;min-width:120px;border-radius:4px;background:var(--panel);overflow:hidden;
border:1px solid var(--line);print-color-adjust:exact;-webkit-print-color-adjust:exact}
.meter i{position:absolute;top:0;bottom:0;left:0;background:var(--c0)}.meter .aside{background:var(--raw)}
.meter .maybe{background:repeating-linear-gradient(45deg,var(--raw) 0 4px,transparent 4px 8px)}
.meter .over{background:var(--bad)}
.meters{display:grid;grid-template-columns:minmax(90px,max-content) minmax(120px,1fr) max-content;gap:7px 14px;
align-items:center;margin:.3rem 0}
.meters .name{overflow-wrap:anywhere}.meters .number{text-align:right;font-variant-numeric:tabular-nums}
.shots td{padding:4px 6px 10px 0;vertical-align:top}
.shots .prompt th{text-align:left;font-weight:500;padding:12px 0 4px}
.shots .prompt span{position:sticky;left:0;display:inline-block;max-width:min(92vw,900px);overflow-wrap:anywhere}
.shots .variant{position:sticky;left:0;z-index:1;background:var(--page);text-align:left;vertical-align:top;
font-weight:500;font-size:.85rem;width:150px;min-width:110px;padding:6px 12px 8px 0;overflow-wrap:anywhere}
.shot{display:block;padding:0;border:0;background:none;color:inherit;font:inherit;text-align:left;cursor:zoom-in}
.shot img{display:block;width:168px;height:auto;border-radius:5px;background:var(--panel);border:1px solid var(--line)}
.shot:focus-visible img{outline:3px solid var(--c0);outline-offset:1px}
.shot span,.none{display:block;color:var(--soft);font-size:.8rem;margin-top:2px}
.none{width:168px;padding:18px 8px;border:1px dashed var(--line);border-radius:5px;overflow-wrap:anywhere}
.sheet img{max-width:100%;height:auto;border:1px solid var(--line)}
details{margin:.8rem 0}summary{cursor:pointer;font-weight:600}
details pre{background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:12px;overflow-x:auto}
dialog{border:0;outline:0;padding:0;background:none;max-width:96vw;max-height:96vh;color:#fff;text-align:center}
dialog::backdrop{background:rgba(0,0,0,.86)}
dialog img{display:block;margin:0 auto;max-width:96vw;max-height:84vh;min-width:min(512px,92vw);object-fit:contain;
cursor:zoom-out}
dialog p{max-width:92vw;overflow-wrap:anywhere}
footer{margin-top:3rem;color:var(--soft);font-size:.85rem}
@media (max-width:640px){body{font-size:14px}.shot img,.none{width:124px}dl{grid-template-columns:1fr;gap:0}
dd{margin-bottom:.45rem}
.chart text{font-size:17px}
.meters{grid-template-columns:1fr;gap:2px}.meters .number{text-align:left;color:var(--soft);margin-bottom:9px}
.shots .variant{width:104px;min-width:92px}h1{font-size:1.35rem}}
@media print{:root{color-scheme:light}body{font-size:11px}main{max-width:none;padding:0}.scroll{overflow:visible}
.shots{table-layout:fixed;width:100%}.shot img,.none{width:100%}.shots .variant{position:static}
tr,.tile,.chart,.note{break-inside:avoid}h2,h3{break-after:avoid}details:not([open]){display:none}
.chart svg{min-width:0}section:has(.meters){break-inside:avoid}footer{margin-top:1rem}h2{margin-top:1.4rem}}
"""

DASHES = ("", "7 5", "2 4", "12 5 2 5")

SCRIPT = """
"use strict";
(() => {
  const box = document.querySelector("dialog"), all = [...document.querySelectorAll(".shot")];
  const show = (shot) => {
    box.shot = shot;
    box.querySelector("img").src = shot.querySelector("img").src;
    box.querySelector("p").textContent = shot.dataset.words;
  };
  const step = (by) => {
    const at = all.indexOf(box.shot) + by;
    if (at >= 0 && at < all.length) show(all[at]);
  };
  for (const shot of all) shot.addEventListener("click", () => { show(shot); box.showModal(); });
  box.addEventListener("click", () => box.close());
  box.addEventListener("close", () => { if (box.shot) box.shot.focus(); });
  box.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") step(1);
    if (event.key === "ArrowLeft") step(-1);
  });
})();
"""

_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode("ascii")

POLICY = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{_HASH}'"
"""Only this script runs, whatever a prompt or a config holds."""
