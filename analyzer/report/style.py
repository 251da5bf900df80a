"""The style sheet of the report: light and dark, from a phone's width to print."""

CSS = """
:root {
  color-scheme: light dark;
  --ink: #1b1f24; --soft: #57606a; --paper: #ffffff; --card: #f6f8fa; --line: #d0d7de; --link: #0550ae;
  --alert: #7a4100; --alert-paper: #fff4e0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6edf3; --soft: #a0abb7; --paper: #0d1117; --card: #161b22; --line: #3d444d; --link: #79b8ff;
    --alert: #ffd8a0; --alert-paper: #3a2a0f;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.5rem 0; }
h1 small { display: block; font-size: 1.1rem; font-weight: 400; color: var(--soft); margin-top: 0.25rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 0.75rem; padding-top: 0.75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.25rem 0 0.25rem; }
p, li, dd { max-width: 60rem; }
p { margin: 0.4rem 0; }
ul { margin: 0.4rem 0; padding-left: 1.25rem; }
a { color: var(--link); }
@media (min-width: 48rem) {
  nav {
    position: sticky; top: 0; z-index: 1; background: var(--paper); border-bottom: 1px solid var(--line);
  }
  h2 { scroll-margin-top: 3.5rem; }
}
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; }
.soft { color: var(--soft); }
.alert {
  color: var(--alert); background: var(--alert-paper); border-left: 4px solid; padding: 0.4rem 0.75rem;
  margin: 0.4rem 0; max-width: 60rem;
}
.runs {
  display: grid; gap: 1rem; align-items: start; margin-top: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
}
.run {
  background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 0 1rem 0.75rem; min-width: 0;
}
figure { margin: 1.5rem 0; min-width: 0; }
.runs figure { margin: 0.5rem 0; }
.picture { overflow-x: auto; background: #ffffff; border: 1px solid var(--line); border-radius: 6px; padding: 0.5rem; }
.picture img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.picture.wide img { width: 50rem; min-width: 34rem; }
.scroll { overflow-x: auto; margin: 0.75rem 0; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption { text-align: left; font-weight: 600; padding-bottom: 0.25rem; }
th, td { padding: 0.25rem 0.6rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { vertical-align: bottom; max-width: 9rem; overflow-wrap: anywhere; }
th[scope="row"] { text-align: left; font-weight: 400; }
td { white-space: nowrap; }
@media (max-width: 40rem) {
  td { white-space: normal; }
  th, td { padding: 0.25rem 0.35rem; }
}
td small { display: block; color: var(--soft); }
.words td { text-align: left; white-space: normal; min-width: 8rem; max-width: 24rem; overflow-wrap: anywhere; }
.words thead th { text-align: left; max-width: 24rem; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: 0.1rem 1rem; margin: 0.5rem 0; }
dt { color: var(--soft); }
dd { margin: 0; min-width: 0; }
@media print {
  :root {
    --ink: #000000; --soft: #444444; --paper: #ffffff; --card: #ffffff; --line: #999999; --link: #000000;
    --alert: #000000; --alert-paper: #ffffff;
  }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  figure, .run, tr { break-inside: avoid; }
  h2, h3, caption { break-after: avoid; }
  .scroll, .picture { overflow: visible; }
  .picture.wide img { width: 100%; min-width: 0; }
  table { font-size: 7.5pt; }
  th, td { padding: 0.1rem 0.35rem; }
}
"""
