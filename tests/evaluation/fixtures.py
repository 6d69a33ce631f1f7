"""A few images of each of the 26 evaluation sets, in the layout in which the set is published.

What an image shows is told by its colour, :func:`colour_of` the number of its class among the
*official* class names, while files and folders carry the names of the *data set*. So a model that
reads the colour is right only if the class names of both are matched rightly.
"""

import json
import pickle
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import scipy.io

from mmslip.datasets.tasks import load_task

__all__ = ['Painter', 'class_of', 'colour_of', 'write_sets']

SIZE = 24
SHADES = 25  # between two values of a digit, more than JPEG loses


def colour_of(number: int) -> tuple[int, int, int]:
    """RGB of a class: its decimal digits, the last one as red."""
    return tuple(12 + SHADES * (number // 10**place % 10) for place in range(3))


def class_of(colour: Iterable[float]) -> int:
    """The class of an RGB colour; grey is one of 0 to 9, so there is no 111, 222 to 999."""
    red, green, blue = (round((float(value) - 12) / SHADES) for value in colour)
    return red if red == green == blue else red + 10 * green + 100 * blue


class Painter:
    """Writes the images of a set, given the official names of what they show."""

    def __init__(self, root: Path, task: str) -> None:
        self.root = root
        self.names = [names[0] for names in load_task(task).classes]

    def pixels(self, name: str) -> np.ndarray:
        """RGB uint8 ``(SIZE, SIZE, 3)``."""
        colour = colour_of(self.names.index(name))
        return np.broadcast_to(np.uint8(colour), (SIZE, SIZE, 3))

    def grey(self, name: str, size: int) -> np.ndarray:
        """Uint8 ``(size, size)``."""
        return np.full((size, size), colour_of(self.names.index(name))[0], np.uint8)

    def image(self, path: str, name: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        kind = '.jpg' if target.suffix.lower() == '.jpeg' else target.suffix
        content = cv2.imencode(kind, self.pixels(name)[..., ::-1])[1]
        target.write_bytes(content.tobytes())

    def text(self, path: str, *lines: object) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')

    def folders(self, prefix: str, names: Iterable[str], shown: dict[str, str], kind: str) -> None:
        """A folder for each class, of which those ``shown`` (by official name) have images."""
        for folder in names:
            (self.root / prefix / folder).mkdir(parents=True, exist_ok=True)
        for folder, name in shown.items():
            assert (self.root / prefix / folder).is_dir(), folder
            self.image(f'{prefix}/{folder}/{folder}_1.{kind}', name)


def _cars_struct(columns: dict[str, list]) -> np.ndarray:
    """A MATLAB struct array, ``(1, N)``."""
    rows = np.empty((1, len(next(iter(columns.values())))), [(key, 'O') for key in columns])
    for key, values in columns.items():
        for number, value in enumerate(values):
            rows[0, number][key] = value
    return rows


def _food101(p: Painter) -> None:
    shown = dict(cheese_plate='cheese plate', cheesecake='cheesecake', waffles='waffles')
    p.text('food-101/meta/test.txt', *(f'{name}/1' for name in shown))
    for folder, name in shown.items():
        p.image(f'food-101/images/{folder}/1.jpg', name)


def _cifar(p: Painter, folder: str, files: list[str], key: str, shown: dict[int, str]) -> None:
    target = p.root / folder
    target.mkdir(parents=True)
    images = [np.resize(p.pixels(name)[0, 0], (32, 32, 3)) for name in shown.values()]
    data = np.stack([image.transpose(2, 0, 1).ravel() for image in images])  # planes, RGB
    for name in files:
        (target / name).write_bytes(pickle.dumps({'data': data, key: list(shown)}))


def _cifar10(p: Painter) -> None:
    batches = [f'data_batch_{number}' for number in range(1, 6)]
    shown = {1: 'automobile', 8: 'ship', 9: 'truck'}
    _cifar(p, 'cifar10/cifar-10-batches-py', [*batches, 'test_batch'], 'labels', shown)


def _cifar100(p: Painter) -> None:
    shown = {1: 'aquarium fish', 41: 'lawn mower', 99: 'worm'}
    _cifar(p, 'cifar100/cifar-100-python', ['train', 'test'], 'fine_labels', shown)


def _cub200(p: Painter) -> None:
    shown = {
        '001.Black_footed_Albatross': 'Black footed Albatross',
        '017.Cardinal': 'Cardinal',
        '200.Common_Yellowthroat': 'Common Yellowthroat',
    }
    files = [f'{folder}/{folder[4:]}_0001.jpg' for folder in shown]
    for path, name in zip(files, shown.values(), strict=True):
        p.image(f'CUB_200_2011/images/{path}', name)
    train = '001.Black_footed_Albatross/of_the_training_set.jpg'
    rows = list(enumerate([*files, train], 1))
    p.text('CUB_200_2011/images.txt', *(f'{number} {path}' for number, path in rows))
    p.text(
        'CUB_200_2011/image_class_labels.txt',
        *(f'{number} {int(path[:3])}' for number, path in rows),
    )
    p.text(
        'CUB_200_2011/train_test_split.txt',
        *(f'{number} {int(path == train)}' for number, path in rows),
    )


def _sun397(p: Painter) -> None:
    shown = {
        '/a/abbey': 'abbey',
        '/j/jail_cell': 'jail cell',
        '/j/jail_indoor': 'jail indoor',
        '/a/apse/indoor': 'apse indoor',
    }
    p.text('SUN397/Partitions/Testing_01.txt', *(f'{folder}/sun_a.jpg' for folder in shown))
    for folder, name in shown.items():
        p.image(f'SUN397/SUN397{folder}/sun_a.jpg', name)


def _cars(p: Painter) -> None:
    shown = {
        '00001.jpg': (1, 'AM General Hummer SUV 2000'),
        '00002.jpg': (2, 'Acura RL Sedan 2012'),
        '00003.jpg': (196, 'smart fortwo Convertible 2012'),
    }
    for file, (_, name) in shown.items():
        p.image(f'Stanford_Cars/cars_test/{file}', name)
    (p.root / 'Stanford_Cars/devkit').mkdir()
    columns = {f'bbox_{side}': [1.0] * len(shown) for side in ('x1', 'y1', 'x2', 'y2')}
    columns['class'] = [float(number) for number, _ in shown.values()]
    columns['fname'] = list(shown)
    scipy.io.savemat(
        p.root / 'Stanford_Cars/devkit/cars_test_annos_withlabels.mat',
        dict(annotations=_cars_struct(columns)),
    )


def _aircraft(p: Painter) -> None:
    shown = {'1514522': '707-320', '0747566': 'F/A-18', '1008575': 'Yak-42'}
    rows = [f'{number} {name}' for number, name in shown.items()]
    p.text('fgvc-aircraft-2013b/data/images_variant_test.txt', *rows)
    for number, name in shown.items():
        p.image(f'fgvc-aircraft-2013b/data/images/{number}.jpg', name)


def _dtd(p: Painter) -> None:
    names = ['banded/banded_0002.jpg', 'banded/banded_0004.jpg', 'zigzagged/zigzagged_0001.jpg']
    for path in names:
        p.image(f'dtd/images/{path}', path.partition('/')[0])
    (p.root / 'dtd/imdb').mkdir()
    images = {
        'name': np.array([names], object),
        'class': [[1.0, 1.0, 47.0]],
        'set': [[3.0, 1.0, 3.0]],
    }
    scipy.io.savemat(p.root / 'dtd/imdb/imdb.mat', dict(images=images))


def _pets(p: Painter) -> None:
    shown = {'american_bulldog': 2, 'Bengal': 6, 'shiba_inu': 32, 'yorkshire_terrier': 37}
    root = 'Oxford-IIIT_Pets'
    p.text(f'{root}/annotations/test.txt', *(f'{n}_1 {number} 1 1' for n, number in shown.items()))
    for name in shown:
        p.image(f'{root}/images/{name}_1.jpg', name.replace('_', ' '))


def _caltech101(p: Painter) -> None:
    shown = {
        'BACKGROUND_Google': (0, 'background'),
        'Faces': (1, 'off-center face'),
        'Faces_easy': (2, 'centered face'),
        'yin_yang': (101, 'yin and yang symbol'),
    }
    rows = [f'{folder}/image_0001.jpg {number}' for folder, (number, _) in shown.items()]
    p.text('caltech-101/meta/test.txt', *rows)
    for folder, (_, name) in shown.items():
        p.image(f'caltech-101/101_ObjectCategories/{folder}/image_0001.jpg', name)


def _flowers(p: Painter) -> None:
    labels = {1: 1, 2: 77, 3: 102, 4: 1}  # image: class
    names = {1: 'pink primrose', 77: 'passion flower', 102: 'blackberry lily'}
    for image, label in labels.items():
        p.image(f'Flowers102/jpg/image_{image:05d}.jpg', names[label])
    row = np.array([list(labels.values())], np.uint8)
    scipy.io.savemat(p.root / 'Flowers102/imagelabels.mat', dict(labels=row))
    splits = dict(trnid=[[4, 4]], valid=[[4, 4]], tstid=[[1, 2, 3]])
    scipy.io.savemat(p.root / 'Flowers102/setid.mat', {k: np.uint16(v) for k, v in splits.items()})


def _mnist(p: Painter) -> None:
    folder = p.root / 'mnist'
    folder.mkdir()
    digits = (7, 2, 0)
    images = np.stack([p.grey(str(digit), 28) for digit in digits])
    for part in ('train', 't10k'):  # big-endian: kind, sizes, bytes
        header = np.array([0x803, len(digits), 28, 28], '>i4').tobytes()
        (folder / f'{part}-images-idx3-ubyte').write_bytes(header + images.tobytes())
        header = np.array([0x801, len(digits)], '>i4').tobytes()
        (folder / f'{part}-labels-idx1-ubyte').write_bytes(header + bytes(digits))


def _fer2013(p: Painter) -> None:
    shown = {0: 'angry', 4: 'sad', 5: 'surprised', 6: 'neutral'}
    rows = []
    for usage in ('Training', 'PublicTest', 'PrivateTest'):
        for number, name in shown.items():
            pixels = ' '.join(map(str, p.grey(name, 48).ravel()))
            rows.append(f'{number},{pixels},{usage}')
    p.text('fer2013/fer2013.csv', 'emotion,pixels,Usage', *rows)


def _stl10(p: Painter) -> None:
    folder = p.root / 'stl10_binary'
    folder.mkdir()
    shown = {1: 'airplane', 8: 'monkey', 10: 'truck'}
    images = [np.resize(p.pixels(name)[0, 0], (96, 96, 3)) for name in shown.values()]
    images[0] = images[0].copy()
    images[0][:8, -8:] = 255  # upper right corner
    planes = np.stack([image.transpose(2, 1, 0) for image in images])  # column by column
    (folder / 'test_X.bin').write_bytes(planes.tobytes())
    (folder / 'test_y.bin').write_bytes(bytes(shown))


def _eurosat(p: Painter) -> None:
    shown = dict(
        AnnualCrop='annual crop land',
        HerbaceousVegetation='brushland or shrubland',
        PermanentCrop='permanent crop land',
        SeaLake='lake or sea',
    )
    others = 'Forest Highway Industrial Pasture Residential River'.split()
    p.folders('EuroSAT/2750', [*shown, *others], shown, 'jpg')


def _resisc45(p: Painter) -> None:
    shown = dict(airplane='airplane', sea_ice='sea ice', wetland='wetland')
    p.folders('NWPU-RESISC45', [name.replace(' ', '_') for name in p.names], shown, 'jpg')


def _gtsrb(p: Painter) -> None:
    shown = {
        0: 'red and white circle 20 kph speed limit',
        14: 'stop',
        42: 'white circle with gray strike bar indicating no passing for trucks has ended',
    }
    rows = [f'{number:05d}.ppm;53;54;6;5;48;49;{number}' for number in shown]
    head = 'Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId'
    p.text('gtsrb/GT-final_test.csv', head, *rows)
    for number, name in shown.items():
        p.image(f'gtsrb/GTSRB/Final_Test/Images/{number:05d}.ppm', name)


def _kitti_distance(p: Painter) -> None:
    rest = '0.00 0 1.85 387.63 181.54 423.81 203.12 1.67 1.87 3.69 -16.53 2.39'
    shown = {
        f'Car {rest} 7.99 1.57': 'a photo i took of a car on my left or right side.',
        f'Van {rest} 8.01 1.57\nPedestrian {rest} 3.00 0.1': 'a photo i took with a car nearby.',
        f'Truck {rest} 58.49 1.57\nDontCare -1 -1 -10 1 2 3 4 -1 -1 -1 -1000 -1000 -1000 -10': (
            'a photo i took with a car in the distance.'
        ),
        f'Cyclist {rest} 4.00 1.57': 'a photo i took with no car.',
    }
    for number, (objects, name) in enumerate(shown.items()):
        p.image(f'kitti/training/image_2/{number:06d}.png', name)
        p.text(f'kitti/training/label_2/{number:06d}.txt', objects)


def _country211(p: Painter) -> None:
    shown = dict(AD='Andorra', CH='Switzerland', XK='Kosovo', ZW='Zimbabwe')
    p.folders('country211/test', load_task('country211').labels, shown, 'jpg')


def _patch_camelyon(p: Painter) -> None:
    shown = {'0': 'lymph node', '1': 'lymph node containing metastatic tumor tissue'}
    p.folders('patch_camelyon/test', shown, shown, 'png')


def _ucf101_frames(p: Painter) -> None:
    shown = dict(
        ApplyEyeMakeup='Apply Eye Makeup', HandstandPushups='Hand Stand Pushups', YoYo='Yo Yo'
    )
    names = {name.replace(' ', '') for name in p.names} - {'HandStandPushups'}
    p.folders('ucf101_frames/test', [*names, 'HandstandPushups'], shown, 'jpg')


def _kinetics700_frames(p: Painter) -> None:
    shown = {name: name for name in ('abseiling', "massaging person's head", 'zumba')}
    p.folders('kinetics700_frames/val', p.names, shown, 'jpg')


def _clevr_counts(p: Painter) -> None:
    scenes = []
    for number in (3, 9, 10):
        file = f'CLEVR_val_{number:06d}.png'
        p.image(f'CLEVR_v1.0/images/val/{file}', str(number))
        scenes.append(dict(image_filename=file, objects=[dict(shape='cube')] * number))
    p.text('CLEVR_v1.0/scenes/CLEVR_val_scenes.json', json.dumps(dict(info={}, scenes=scenes)))


def _hateful_memes(p: Painter) -> None:
    names = ['meme', 'hatespeech meme', 'meme', 'hatespeech meme']
    rows = []
    for number, name in enumerate(names):
        p.image(f'hateful_memes/img/{number:05d}.png', name)
        row = dict(id=number, img=f'img/{number:05d}.png', label=number % 2, text='words')
        rows.append(json.dumps(row))
    p.text('hateful_memes/dev.jsonl', *rows)


def _rendered_sst2(p: Painter) -> None:
    shown = dict(negative='negative', positive='positive')
    p.folders('rendered-sst2/test', shown, shown, 'png')


def _imagenet(p: Painter) -> None:
    shown = {0: 'tench', 134: 'crane bird', 517: 'construction crane', 998: 'corn cob'}
    files = [f'ILSVRC2012_val_{number:08d}.JPEG' for number in shown]
    for file, name in zip(files, shown.values(), strict=True):
        p.image(f'imagenet/val/{file}', name)
    rows = [f'{file} {number}' for file, number in zip(files, shown, strict=True)]
    p.text('imagenet/meta/val.txt', *rows)


_WRITERS = [
    _food101, _cifar10, _cifar100, _cub200, _sun397, _cars, _aircraft, _dtd, _pets, _caltech101,
    _flowers, _mnist, _fer2013, _stl10, _eurosat, _resisc45, _gtsrb, _kitti_distance, _country211,
    _patch_camelyon, _ucf101_frames, _kinetics700_frames, _clevr_counts, _hateful_memes,
    _rendered_sst2, _imagenet,
]  # fmt: skip


def write_sets(root: Path) -> None:
    """Write all of them under ``root``, which a config calls ``data``."""
    for write in _WRITERS:
        write(Painter(root, write.__name__[1:]))
