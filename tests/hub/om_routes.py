"""The protocol of the openMind hub, as far as `openmind_hub` uses it for models."""
import base64
import re

from hub_server import LARGE, Repo, git_sha1, sha256

_WHEN = "2024-01-01T00:00:00Z"


def answer(request):
    """Answer one request."""
    for verb, pattern, route in _ROUTES:
        match = re.fullmatch(pattern, request.address)
        if match and verb == request.command:
            route(request, *match.groups())
            return
    request.send_json({"code": "no_route", "msg": f"{request.command} {request.address}"}, 404)


def _repo(request, repo_id, write=False):
    repo, hub = request.hub.repos.get(repo_id), request.hub
    if request.token == "bad" or write and request.token != hub.write_token or \
            repo is not None and (repo.private or repo.gated) and request.token not in (repo.token, hub.write_token):
        request.send_json({"code": "unauthorized", "msg": "token"}, 401)
        return None
    if repo is None:
        request.send_json({"code": "model_not_found", "msg": "no such model"}, 404)
    return repo


def _at(request, repo, revision):
    commit, files = repo.at(revision)
    if commit is None:
        request.send_json({"code": "ref_not_exist", "msg": "no such revision"}, 404)
    return commit, files


def _entry(path, content, commit):
    return {"type": "file", "name": path.rsplit("/", maxsplit=1)[-1], "path": path, "size": len(content),
            "is_lfs": path.endswith(LARGE), "etag": sha256(content) if path.endswith(LARGE) else git_sha1(content),
            "commit": {"commit_sha": commit, "message": "change", "created": _WHEN}}


def _tree(request, repo_id):
    repo = _repo(request, repo_id)
    if repo is None:
        return
    commit, files = _at(request, repo, request.query.get("ref", "main"))
    if commit is None:
        return
    folder = request.query.get("path", "")
    prefix, tree, folders = f"{folder}/" if folder else "", [], set()
    for path, content in sorted(files.items()):
        if not path.startswith(prefix):
            continue
        head, slash, _ = path[len(prefix):].partition("/")
        if slash and path[len(prefix):] and not path.startswith("/") and ".." not in path:
            if head not in folders:
                folders.add(head)
                tree.append({"type": "dir", "name": head, "path": prefix + head})
        else:
            tree.append(_entry(path, content, commit))
    request.send_json({"data": {"tree": tree, "last_commit": {"commit": {
        "commit_sha": commit, "message": "change", "created": _WHEN}}}})


def _info(request, repo_id):
    repo = _repo(request, repo_id)
    if repo is None:
        return
    commit, files = _at(request, repo, request.query["ref"])
    if commit is None:
        return
    path = request.query["path"]
    if path not in files:
        request.send_json({"code": "branch_or_path_not_found", "msg": "no such file"}, 404)
        return
    request.send_json({"data": {**_entry(path, files[path], commit), "branch_last_commit": commit,
                                "url": f"{request.hub.url}/api/v1/file/{repo_id}/{commit}/media/{path}"}})


def _media(request, repo_id, revision, path):
    repo = _repo(request, repo_id)
    if repo is None:
        return
    commit, files = _at(request, repo, revision)
    if commit is not None:
        if path in files:
            request.send_file(files[path])
        else:
            request.send_json({"code": "branch_or_path_not_found", "msg": "no such file"}, 404)


def _model(request, repo_id):
    repo = _repo(request, repo_id)
    if repo is not None:
        request.send_json({"data": {"id": "1", "name": repo_id.split("/")[1], "owner": repo_id.split("/")[0],
                                    "visibility": "private" if repo.private else "public", "labels": {}}})


# ---- writing ----

def _create(request):
    body = request.json()
    repo_id = f"{body['owner']}/{body['name']}"
    if request.token != request.hub.write_token:
        request.send_json({"code": "unauthorized", "msg": "token"}, 401)
    elif repo_id in request.hub.repos:
        request.send_json({"code": "duplicate_creating", "msg": "exists"}, 400)
    else:
        request.hub.repos[repo_id] = Repo(private=body["visibility"] == "private")
        request.send_json({"data": {"id": "1"}}, 201)


def _branch(request, repo_id):
    repo, body = _repo(request, repo_id, write=True), request.json()
    if repo is None:
        return
    if body["branch"] in repo.branches:
        request.send_json({"code": "exists", "msg": "exists"}, 400)
        return
    repo.branches[body["branch"]] = repo.branches[body["base_branch"]]
    request.send_json({"data": {}}, 201)


def _pre_upload(request, repo_id):
    if _repo(request, repo_id, write=True) is not None:
        request.send_json({"data": {"files": [
            {"path": one["path"], "type": "lfs" if one["path"].endswith(LARGE) else "regular"}
            for one in request.json()["files"]]}})


def _batch(request, repo_id):
    if _repo(request, repo_id, write=True) is None:
        return
    objects = []
    for one in request.json()["objects"]:
        href = f"{request.hub.url}/api/v1/part/{one['oid']}"
        objects.append({"oid": one["oid"], "size": one["size"], "error": {"code": 200}, "actions": {
            "parts": [{"index": 1, "href": href, "size": max(one["size"], 1), "headers": {}}],
            "verify": {"href": f"{request.hub.url}/api/v1/verify", "params": {"upload_id": one["oid"]}}}})
    request.send_json({"data": {"objects": objects}})


def _part(request, oid):
    if sha256(request.body) != oid:
        request.send_json({"code": "checksum", "msg": "checksum"}, 400)
        return
    request.hub.large[oid] = request.body
    request.send_json({}, headers={"ETag": f'"{oid}"'})


def _upload(request, repo_id):
    repo, body = _repo(request, repo_id, write=True), request.json()
    if repo is None:
        return
    changes = {}
    for one in body["files"]:
        content = base64.b64decode(one["content"]) if one["operation"] == "create" else None
        pointer = re.search(rb"oid sha256:(\w{64})", content or b"")
        changes[one["path"]] = request.hub.large[pointer.group(1).decode()] if pointer else content
    name = repo.commit(changes, body.get("ref", "main"), body.get("title", ""))
    repo.message = body.get("title", "")
    address = f"{request.hub.url}/{repo_id}/commit/{name}"
    request.send_json({"data": [{"commit_oid": name, "commit_url": address}]}, 201)


_R = r"([^/]+/[^/]+)"
_ROUTES = [
    ("GET", rf"/api/v1/file/{_R}/info", _info),
    ("GET", rf"/api/v1/file/{_R}/([^/]+)/media/(.+)", _media),
    ("GET", rf"/api/v1/file/{_R}", _tree),
    ("GET", rf"/api/v1/model/{_R}", _model),
    ("GET", r"/api/v1/user", lambda request: request.send_json({"data": {"account": "myself", "email": "a@b.org"}})),
    ("POST", r"/api/v1/model", _create),
    ("POST", rf"/api/v1/branch/model/{_R}", _branch),
    ("POST", r"/api/v1/file/license_check", lambda request: request.send_json({"data": True})),
    ("POST", rf"/api/v1/file/{_R}/pre_upload", _pre_upload),
    ("POST", rf"/api/v1/file/{_R}/info/lfs/objects/batch", _batch),
    ("PUT", r"/api/v1/part/(\w+)", _part),
    ("POST", r"/api/v1/verify", lambda request: request.send_json({"data": {}})),
    ("POST", rf"/api/v1/file/{_R}/upload", _upload),
]
