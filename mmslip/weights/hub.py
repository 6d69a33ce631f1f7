"""Folders of weights on a model hub, by ``huggingface_hub``."""

import os
import re
from pathlib import Path

from mmslip.weights.convert import import_weights

__all__ = ['check_folder', 'push', 'states_license']


def check_folder(folder: str | Path) -> None:
    """Refuse a folder that is not as ``mmslip convert`` writes it, weights and all.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: A file is missing, or the weights do not fill the model that is described.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f'There is no folder {folder}: write one by `mmslip convert CHECKPOINT {folder} --to '
            'hugging_face`, or for another library.'
        )
    try:
        imported = import_weights(folder)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f'{folder} is no whole folder of weights: {error}') from error
    target = imported.origin
    wanted = {target.weights_file, 'README.md', *target.describe(target.counterpart(imported.spec))}
    missing = sorted(name for name in wanted if not (folder / name).is_file())
    if missing:
        raise ValueError(
            f'{folder} lacks {", ".join(missing)}, without which it is no whole folder for '
            f'{target.title}: write it anew by `mmslip convert`.'
        )


def states_license(folder: str | Path) -> bool:
    """Whether the card of a folder states a licence, which is its user's to do."""
    path = Path(folder).expanduser() / 'README.md'
    text = path.read_text(encoding='utf-8') if path.is_file() else ''
    header = re.match(r'---\n(.*?)^---$', text, re.DOTALL | re.MULTILINE)
    return header is not None and re.search(r'^license: *\S', header[1], re.MULTILINE) is not None


def push(
    folder: str | Path, repo: str, private: bool = False, message: str = 'Upload by mmslip'
) -> str:
    """Upload a folder that ``mmslip convert`` has written, as one commit.

    The hub is that of ``huggingface_hub``, or ``HF_ENDPOINT``; the token the one it has stored, or
    ``HF_TOKEN``. The repository is made where it does not exist.

    Args:
        folder: All of it is uploaded, without hidden files.
        repo: ``OWNER/NAME``.
        private: Of a repository that is made.
        message: Of the commit.

    Returns:
        The address of the repository.

    Raises:
        ModuleNotFoundError: ``huggingface_hub`` is not installed.
        FileNotFoundError, ValueError: The folder is not whole, or there is no token.
        OSError: The hub refuses, or cannot be reached.
    """
    try:
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.errors import HfHubHTTPError
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'Uploading needs huggingface_hub: pip install "mmslip[hub]".'
        ) from error
    check_folder(folder)
    if get_token() is None:
        raise ValueError(
            'There is no token that may write: run `hf auth login`, or set HF_TOKEN to one.'
        )
    api = HfApi(endpoint=os.environ.get('HF_ENDPOINT'))
    try:
        url = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id,
            folder_path=Path(folder).expanduser(),
            commit_message=message,
            ignore_patterns=['.*', '**/.*'],
        )
    except HfHubHTTPError as error:
        status = error.response.status_code
        why = {
            401: 'it does not know the token',
            403: 'the token may not write there',
        }.get(status, f'it answered {status}, {" ".join(str(error).split())}')
        raise OSError(f'{api.endpoint} does not take {repo}: {why}.') from error
    except ValueError:  # such as a name that no repository can have
        raise
    except Exception as error:  # of the HTTP client, which is another one from version to version
        raise OSError(f'{api.endpoint} cannot be reached: {error}') from error
    return str(url)
