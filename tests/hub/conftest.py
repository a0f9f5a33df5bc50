"""Hubs on loopback for both client libraries, which run unchanged."""
import gc
import os

# read when the libraries are imported: no storage service beside the hub, no bars
os.environ.update(HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_PROGRESS_BARS="1", OM_HUB_DISABLE_PROGRESS_BARS="1",
                  HF_HUB_DISABLE_TELEMETRY="1")

import pytest  # noqa: E402
import trustme  # noqa: E402

from hub_proxy import Proxy  # noqa: E402
from hub_server import HubServer  # noqa: E402
from mindformers.hub import download  # noqa: E402

OM_HOST = "modelers.cn"  # openmind_hub takes hosts of its own list only; the proxy leads it here
VARIABLES = ("HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "MF_HUB", "MF_HUB_OFFLINE", "HTTP_PROXY",
             "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """(certificate, key) of a server that calls itself like the openMind hub."""
    folder = tmp_path_factory.mktemp("certificate")
    crt, key = folder / "hub.crt", folder / "hub.key"
    authority = trustme.CA()
    issued = authority.issue_cert(OM_HOST)
    issued.private_key_pem.write_to_path(key)
    for pem in issued.cert_chain_pems:
        pem.write_to_path(crt, append=True)
    authority.cert_pem.write_to_path(crt, append=True)  # the clients trust this file, too
    return str(crt), str(key)


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """No variable and no login of the machine, a cache of its own."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    monkeypatch.setenv("CHECKPOINT_DOWNLOAD_FOLDER", str(tmp_path / "checkpoint_download"))
    from huggingface_hub import constants
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf_cache"))
    monkeypatch.chdir(tmp_path)
    download._listings.clear()


@pytest.fixture
def hf(monkeypatch):
    """A Hugging Face hub, which HF_ENDPOINT names."""
    server = HubServer()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.stop()


@pytest.fixture
def om(monkeypatch, certificate, tmp_path):
    """An openMind hub with TLS, reached by its own name through a proxy, which is the only way out."""
    import openmind_hub
    server = HubServer(certificate, OM_HOST)
    proxy = Proxy(server.port)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate[0])
    monkeypatch.setattr(openmind_hub, "OM_HUB_CACHE", str(tmp_path / "om_cache"), raising=False)
    server.proxy = proxy
    gc.freeze()  # the library collects garbage after each request, which takes long with MindSpore in the process
    yield server
    gc.unfreeze()
    proxy.stop()
    server.stop()
    from openmind_hub.plugins.openmind.utils._http import reset_sessions
    reset_sessions()


@pytest.fixture(params=["hf", "om"])
def hub(request):
    """Each hub in turn, with `prefix` for names."""
    server = request.getfixturevalue(request.param)
    server.prefix = {"hf": "hf://", "om": "openmind://"}[request.param]
    return server
