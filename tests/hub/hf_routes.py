"""The protocol of the Hugging Face Hub, as far as `huggingface_hub` uses it for models."""
import base64
import json
import re

from hub_server import LARGE, Repo, git_sha1, sha256

_OID = "X-Error-Code"


def answer(request):
    """Answer one request."""
    for verb, pattern, route in _ROUTES:
        match = re.fullmatch(pattern, request.address)
        if match and verb == ("GET" if request.command == "HEAD" else request.command):
            route(request, *match.groups())
            return
    request.send_json({"error": f"no route {request.command} {request.address}"}, 404)


def _refuse(request, status, code, text):
    request.send_json({"error": text}, status, {_OID: code, "X-Error-Message": text})


def _repo(request, repo_id, content=False, write=False):
    """The repository when the request may have it; None after an answer that says no."""
    hub, repo = request.hub, request.hub.repos.get(repo_id)
    if request.token == "bad":
        _refuse(request, 401, "", "Invalid credentials in Authorization header")
        return None
    if write and request.token != hub.write_token:
        _refuse(request, *((403, "", "no right to write") if request.token else (401, "", "log in")))
        return None
    if repo is None or repo.private and request.token not in (repo.token, hub.write_token):
        _refuse(request, 401 if request.token is None else 404, "RepoNotFound", "Repository not found")
        return None
    if content and repo.gated and request.token != repo.token:
        _refuse(request, 403, "GatedRepo", "Access to this model is restricted")
        return None
    return repo


def _info(request, repo_id, revision="main"):
    repo = _repo(request, repo_id)
    if repo is None:
        return
    commit, files = repo.at(revision)
    if commit is None:
        _refuse(request, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return
    blobs = request.query.get("blobs")
    siblings = [_sibling(path, content, blobs) for path, content in sorted(files.items())]
    request.send_json({"_id": "1", "id": repo_id, "modelId": repo_id, "sha": commit, "private": repo.private,
                       "gated": "manual" if repo.gated else False, "tags": [], "downloads": 0, "likes": 0,
                       "cardData": {}, "siblings": siblings})


def _sibling(path, content, blobs):
    out = {"rfilename": path}
    if blobs:
        out.update(size=len(content), blobId=git_sha1(content))
        if path.endswith(LARGE):
            out["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
    return out


def _file(request, repo_id, revision, path):
    repo = _repo(request, repo_id, content=True)
    if repo is None:
        return
    commit, files = repo.at(revision)
    if commit is None:
        _refuse(request, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
    elif path not in files:
        request.send_json({"error": "Entry not found"}, 404, {_OID: "EntryNotFound", "X-Repo-Commit": commit})
    elif path.endswith(LARGE):
        content = files[path]
        request.hub.large[sha256(content)] = content
        request.redirect(f"http://localhost:{request.hub.port}/cdn/{sha256(content)}/{path}",
                         {"X-Repo-Commit": commit, "X-Linked-Etag": f'"{sha256(content)}"',
                          "X-Linked-Size": str(len(content)), **_service(request)})
    else:
        request.send_file(files[path], {"X-Repo-Commit": commit, "ETag": f'"{git_sha1(files[path])}"'})


def _service(request):
    headers = {"X-Xet-Hash": "0" * 64, "X-Xet-Refresh-Route": f"{request.hub.url}/xet"}
    return headers if request.hub.storage_service else {}


def _cdn(request, oid, path):
    request.send_file(request.hub.large[oid], {"ETag": f'"{oid}"'})


# ---- writing ----

def _create(request):
    body = request.json()
    repo_id = f"{body.get('organization') or 'myself'}/{body['name']}"
    if request.token != request.hub.write_token:
        _refuse(request, *((403, "", "no right to write") if request.token else (401, "", "log in")))
    elif repo_id in request.hub.repos:
        request.send_json({"error": "You already created this model repo", "url": f"{request.hub.url}/{repo_id}"}, 409)
    else:
        private = body.get("visibility") == "private" or bool(body.get("private"))
        request.hub.repos[repo_id] = Repo(private=private)
        request.send_json({"url": f"{request.hub.url}/{repo_id}", "name": repo_id})


def _branch(request, repo_id, branch):
    repo = _repo(request, repo_id, write=True)
    if repo is None:
        return
    if branch in repo.branches:
        request.send_json({"error": "Reference already exists"}, 409)
        return
    repo.branches[branch] = repo.branches["main"]
    request.send_json({})


def _preupload(request, repo_id, revision):
    repo = _repo(request, repo_id, write=True)
    if repo is not None:
        _, files = repo.at(revision)
        request.send_json({"files": [
            {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular",
             "shouldIgnore": False,
             "oid": git_sha1(files[one["path"]]) if one["path"] in (files or {}) else None}
            for one in request.json()["files"]]})


def _batch(request, repo_id):
    if _repo(request, repo_id, write=True) is None:
        return
    objects = []
    for one in request.json()["objects"]:
        entry = {"oid": one["oid"], "size": one["size"]}
        if one["oid"] not in request.hub.large:
            entry["actions"] = {"upload": {"href": f"{request.hub.url}/lfs/{one['oid']}"},
                                "verify": {"href": f"{request.hub.url}/lfs-verify"}}
        objects.append(entry)
    request.send_json({"transfer": "basic", "objects": objects})


def _store(request, oid):
    if sha256(request.body) != oid:
        request.send_json({"error": "checksum"}, 400)
        return
    request.hub.large[oid] = request.body
    request.send_json({}, headers={"ETag": oid})


def _verify(request):
    body = request.json()
    good = len(request.hub.large.get(body["oid"], b"")) == body["size"]
    request.send_json({}, 200 if good else 422)


def _commit(request, repo_id, revision):
    repo = _repo(request, repo_id, write=True)
    if repo is None:
        return
    if repo.at(revision)[0] is None:
        _refuse(request, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return
    changes, message, description = {}, "", ""
    for line in request.body.splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "header":
            message, description = value["summary"], value.get("description", "")
        elif item["key"] == "file":
            changes[value["path"]] = base64.b64decode(value["content"])
        elif item["key"] == "lfsFile":
            changes[value["path"]] = request.hub.large[value["oid"]]
        elif item["key"] == "deletedFile":
            changes[value["path"]] = None
    pull = request.query.get("create_pr") == "1"
    name = repo.commit(changes, revision, f"{message}\n{description}".strip(), pull)
    repo.message = f"{message}\n{description}".strip()
    base = f"{request.hub.url}/{repo_id}"
    request.send_json({"success": True, "commitOid": name, "commitUrl": f"{base}/commit/{name}",
                       "pullRequestUrl": f"{base}/discussions/{len(repo.pulls)}" if pull else None})


_ROUTES = [
    ("GET", r"/api/models/([^/]+/[^/]+)", _info),
    ("GET", r"/api/models/([^/]+/[^/]+)/revision/(.+)", _info),
    ("GET", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _file),
    ("GET", r"/cdn/(\w+)/(.+)", _cdn),
    ("GET", r"/api/whoami-v2", lambda request: request.send_json({"name": "myself", "type": "user"})),
    ("POST", r"/api/validate-yaml", lambda request: request.send_json({"errors": [], "warnings": []})),
    ("POST", r"/api/repos/create", _create),
    ("POST", r"/api/models/([^/]+/[^/]+)/branch/(.+)", _branch),
    ("POST", r"/api/models/([^/]+/[^/]+)/preupload/(.+)", _preupload),
    ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", _batch),
    ("PUT", r"/lfs/(\w+)", _store),
    ("POST", r"/lfs-verify", _verify),
    ("POST", r"/api/models/([^/]+/[^/]+)/commit/(.+)", _commit),
]
