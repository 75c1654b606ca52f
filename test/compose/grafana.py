"""Stands in for Grafana where its image cannot be had: loads what docker-compose.yml provisions, by Grafana's own rules
as far as they matter here, ends with an error if it would not, and answers the few paths that test/compose.sh asks."""

import base64
import glob
import http.server
import json
import os
import re
import urllib.error
import urllib.request

import yaml

PROVISIONING = "/etc/grafana/provisioning"


def demand(condition, text):
    if not condition:
        raise SystemExit(f"grafana: {text}")


def provisioned(kind, key):
    """The entries under key of all files of a kind."""
    files = sorted(glob.glob(f"{PROVISIONING}/{kind}/*.y*ml"))
    demand(files, f"nothing in {PROVISIONING}/{kind}")
    for name in files:
        with open(name) as file:
            content = yaml.safe_load(file)
        demand(content.get("apiVersion") == 1, f"{name}: apiVersion is not 1")
        yield from content[key]


def objects(node):
    """All JSON objects in node."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from objects(child)


def load_datasources():
    sources = {}
    for s in provisioned("datasources", "datasources"):
        demand(s["name"] and s["type"] and s["access"] in ("proxy", "direct"), f"datasource {s}")
        demand(re.fullmatch(r"[A-Za-z0-9_-]{1,40}", s["uid"]), f"datasource uid {s['uid']}")
        sources[s["uid"]] = s
    demand(sum(bool(s.get("isDefault")) for s in sources.values()) == 1, "not one default datasource")
    return sources


def load_dashboards(sources):
    boards = {}
    types = {s["type"] for s in sources.values()}
    for provider in provisioned("dashboards", "providers"):
        demand(provider["type"] == "file", f"provider {provider}")
        names = glob.glob(provider["options"]["path"] + "/**/*.json", recursive=True)
        demand(names, f"no dashboard in {provider['options']['path']}")
        for name in names:
            with open(name) as file:
                board = json.load(file)
            check_dashboard(name, board, sources, types)
            boards[board["uid"]] = board
    return boards


def check_dashboard(name, board, sources, types):
    demand(board["title"] and re.fullmatch(r"[A-Za-z0-9_-]{1,40}", board["uid"]), f"{name}: title or uid")
    # What the import dialog asks for is never asked for when a file is provisioned.
    demand("__inputs" not in board, f"{name}: it has __inputs")
    ids = [p["id"] for p in objects(board["panels"]) if "gridPos" in p]
    demand(ids and len(ids) == len(set(ids)), f"{name}: ids of panels {ids}")
    variables = {v["name"]: v for v in board["templating"]["list"]}
    for o in objects(board):
        source = o.get("datasource")
        if not isinstance(source, dict) or source.get("uid") in ("-- Grafana --", "grafana"):
            continue
        variable = re.fullmatch(r"\$\{?(\w+)\}?", source["uid"])
        if variable:
            v = variables.get(variable[1])
            demand(v and v["type"] == "datasource" and v["query"] in types, f"{name}: datasource {source}")
        else:
            demand(source["uid"] in sources, f"{name}: datasource {source}")


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/api/health":
            return self.answer(200, b'{"database":"ok"}')
        if self.headers.get("Authorization") != ADMIN:
            return self.answer(401, b'{"message":"Unauthorized"}')
        kind, _, rest = self.path.removeprefix("/api/").partition("/uid/")
        if kind == "dashboards" and rest in BOARDS:
            return self.answer(200, json.dumps({"dashboard": BOARDS[rest], "meta": {"provisioned": True}}).encode())
        uid, _, path = rest.partition("/")
        if kind == "datasources/proxy" and uid in SOURCES:
            try:
                with urllib.request.urlopen(f"{SOURCES[uid]['url']}/{path}", timeout=10) as response:
                    return self.answer(response.status, response.read())
            except urllib.error.HTTPError as e:
                return self.answer(e.code, e.read())
        return self.answer(404, b'{"message":"Not found"}')

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


SOURCES = load_datasources()
BOARDS = load_dashboards(SOURCES)
with open(os.environ["GF_SECURITY_ADMIN_PASSWORD__FILE"]) as file:
    ADMIN = "Basic " + base64.b64encode(b"admin:" + file.read().rstrip("\n").encode()).decode()
with open(os.environ["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]) as file:
    json.load(file)
http.server.ThreadingHTTPServer(("", 3000), Server).serve_forever()
