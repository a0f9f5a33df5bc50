"""Models from and to the places where they live: Hugging Face and openMind (Modelers)."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "resolve": "mindformers.hub.download:resolve",
    "describe": "mindformers.hub.download:describe",
    "HUB_OPTIONS": "mindformers.hub.names:HUB_OPTIONS",
    "is_repo_name": "mindformers.hub.names:is_repo_name",
    "parse": "mindformers.hub.names:parse",
    "push_folder": "mindformers.hub.upload:push_folder",
    "PushToHubMixin": "mindformers.hub.upload:PushToHubMixin",
    "model_card": "mindformers.hub.card:model_card",
    "HubError": "mindformers.hub.errors:HubError",
    "HubNotFoundError": "mindformers.hub.errors:HubNotFoundError",
    "HubAccessError": "mindformers.hub.errors:HubAccessError",
    "HubOfflineError": "mindformers.hub.errors:HubOfflineError",
})
