"""Videos: read and written at their times, a face tracked, edits in time, flicker, whole runs."""

import fractions
import json
import types

import numpy as np
import PIL.Image
import pytest
from test_experiment import load_config

import jaxinv
from benchmarks import video as known
from jaxinv import data, edits, settings
from jaxinv.data import DataError, NoImages, images, video, video_writer
from jaxinv.errors import JaxinvError
from jaxinv.experiments import video as main
from jaxinv.experiments import video_flicker, video_frames
from jaxinv.faces import align, detect, find_faces, track
from jaxinv.optimize.runner import Runner
from jaxinv.runtime import distributed
from jaxinv.settings.video import InvertVideo

av = pytest.importorskip('av')


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    """Eight frames of known motion, with a tone."""
    path = tmp_path_factory.mktemp('clip') / 'talk.mp4'
    known.make(path, 8)
    return video.open_clip(path)


def times(found):
    return [found.seconds(frame.pts) for frame in video.frames(found)]


# --- Reading and writing ---


def test_a_file_is_written_again_with_its_times_colours_and_sound(clip, tmp_path):
    pictures = [frame.picture for frame in video.frames(clip)]
    assert (clip.size, clip.rate, len(pictures)) == (known.SIZE, 25, 8)
    assert times(clip) == pytest.approx(np.arange(8) / 25)
    parts = []
    for start in (0, 5):
        parts.append(tmp_path / f'{start}.nut')
        part = video_writer.PartWriter(parts[-1], clip, clip.size, crf=10)
        for frame in video.frames(clip, start):
            if frame.picture is not None and frame.index < start + 5:
                part.add(frame.picture, frame.pts)
        part.close()
    out = tmp_path / 'out.mp4'
    assert video_writer.join(parts, clip, out) == 'copied'
    again = video.open_clip(out)
    assert times(again) == times(clip)
    for a, b in zip(pictures, video.frames(again), strict=True):
        difference = np.asarray(a, float) - np.asarray(b.picture)
        assert np.abs(difference).mean() < 2 and np.abs(difference.mean((0, 1))).max() < 0.5
    with av.open(str(out)) as container, av.open(str(clip.path)) as source:
        sound = [
            [bytes(packet) for packet in file.demux(audio=0) if packet.size]
            for file in (container, source)
        ]
        assert sound[0] == sound[1]
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ('h264', 'yuv420p')


def test_varying_times_a_late_start_and_other_sound_stay_together(tmp_path):
    path, pts = tmp_path / 'phone.mkv', [400, 433, 500, 900, 933]
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        stream.codec_context.time_base = fractions.Fraction(1, 1000)
        tone = container.add_stream('pcm_s16le', rate=8000, layout='mono')
        for i, at in enumerate(pts):
            frame = av.VideoFrame.from_image(PIL.Image.new('RGB', (64, 48), (40 * i, 90, 90)))
            frame.pts, frame.time_base = at, fractions.Fraction(1, 1000)
            container.mux(stream.encode(frame))
        samples = np.zeros([1, 8000], np.int16)
        samples[0, 4000] = 30_000  # a click at 0.5 s
        heard = av.AudioFrame.from_ndarray(samples, format='s16', layout='mono')
        heard.rate, heard.pts = 8000, 0
        container.mux(tone.encode(heard))
        container.mux(stream.encode())
    found = video.open_clip(path)
    assert times(found) == pytest.approx([at / 1000 for at in pts])
    part = video_writer.PartWriter(tmp_path / 'p.nut', found, found.size, crf=10)
    for frame in video.frames(found):
        part.add(frame.picture, frame.pts)
    part.close()
    out = tmp_path / 'out.mp4'
    assert video_writer.join([tmp_path / 'p.nut'], found, out) == 'encoded as AAC'
    assert times(video.open_clip(out)) == pytest.approx(times(found))
    with av.open(str(out)) as container:
        audio = [(f.time, np.abs(f.to_ndarray()[0])) for f in container.decode(audio=0)]
    start, loudest = max(audio, key=lambda item: item[1].max())
    assert start + loudest.argmax() / 8000 == pytest.approx(0.5, abs=0.02)


def test_a_picture_that_is_stored_turned_is_read_upright(tmp_path):
    path = tmp_path / 'turned.mp4'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 32, 'yuv420p'
        half = np.zeros([32, 64, 3], np.uint8)
        half[:, :32] = 255
        frame = av.VideoFrame.from_ndarray(half, format='rgb24')
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    data = path.read_bytes()
    one = 1 << 16
    straight = np.array([one, 0, 0, 0, one, 0, 0, 0, 1 << 30], '>i4').tobytes()
    turned = np.array([0, one, 0, -one, 0, 0, 0, 0, 1 << 30], '>i4').tobytes()  # clockwise
    start = data.index(b'tkhd')
    place = data.index(straight, start)
    path.write_bytes(data[:place] + turned + data[place + len(turned) :])
    found = video.open_clip(path)
    assert found.size == (32, 64)
    (frame,) = video.frames(found)
    pixels = np.asarray(frame.picture).mean((1, 2))
    assert pixels[:28].min() > 240 and pixels[36:].max() < 15  # left became top


def test_a_folder_of_frames_gets_even_sides(tmp_path):
    folder = tmp_path / 'frames'
    for i in (2, 10, 1):
        images.save(folder / f'f{i}.png', PIL.Image.new('RGB', (33, 21), (10 * i, 60, 60)))
    found = video.open_clip(folder, fps=12.5, max_frames=2)
    colours = [f.picture.getpixel((0, 0))[0] for f in video.frames(found)]
    assert colours == [10, 20] and times(found) == [0.0, 0.08]
    part = video_writer.PartWriter(tmp_path / 'p.nut', found, found.size, crf=10)
    for frame in video.frames(found):
        part.add(frame.picture, frame.pts)
    part.close()
    assert video_writer.join([tmp_path / 'p.nut'], found, tmp_path / 'o.mp4') == 'none'
    assert video.open_clip(tmp_path / 'o.mp4').size == (34, 22)
    images.save(folder / 'f3.png', PIL.Image.new('RGB', (33, 22)))
    with pytest.raises(DataError, match='Frame 2 of frames has 33 x 22 pixels and the first 33 x'):
        list(video.frames(video.open_clip(folder)))
    (folder / 'f3.png').write_text('no picture')
    with pytest.raises(DataError, match='Frame 2 cannot be read: f3.png is not an image'):
        list(video.frames(video.open_clip(folder)))


def test_what_is_no_video_gets_a_sentence(clip, tmp_path):
    secret = tmp_path / 'secret.ts'
    secret.write_bytes(clip.path.read_bytes())
    playlist = f'#EXTM3U\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n'
    (tmp_path / 'list.mp4').write_text(playlist)
    (tmp_path / 'concat.mp4').write_text(f"ffconcat version 1.0\nfile '{secret}'\n")
    (tmp_path / 'text.mp4').write_text('hello ' * 100)
    (tmp_path / 'empty.mp4').write_bytes(b'')
    (tmp_path / 'cut.mp4').write_bytes(clip.path.read_bytes()[:3000])
    for name in ('list', 'concat', 'text', 'empty', 'cut'):
        with pytest.raises(DataError, match='is not a video that can be read|has no'):
            video.open_clip(tmp_path / f'{name}.mp4')
    (tmp_path / 'nothing').mkdir()
    for source, message in (
        ('', 'data.video is empty'),
        (tmp_path / 'gone.mp4', 'there is no such file'),
        (tmp_path / 'nothing', 'data.video has no frames'),
        ('http://127.0.0.1:9/a.mp4', 'there is no such file'),
    ):
        with pytest.raises(DataError, match=message):
            video.open_clip(source)


def test_damaged_packets_cost_their_frames_and_the_same_ones_each_time(clip, tmp_path):
    data = bytearray(clip.path.read_bytes())
    start = data.index(b'mdat') + len(data) // 3
    data[start : start + 400] = np.random.RandomState(0).bytes(400)
    (tmp_path / 'bad.mp4').write_bytes(data)
    found = video.open_clip(tmp_path / 'bad.mp4')
    first = [f.pts for f in video.frames(found)]
    assert first == [f.pts for f in video.frames(found)] and 1 <= len(first) <= 8


# --- The face in time ---


def test_a_tracked_square_follows_the_known_motion_smoothly(clip):
    portrait = PIL.Image.fromarray(known.skimage.data.astronaut())
    still = align.quad(find_faces(portrait)[0].landmarks)
    face, landmarks, boxes, truth = None, [], [], []
    for frame in video.frames(clip):
        face = track.follow(frame.picture, face)
        landmarks.append(face.landmarks)
        boxes.append(face.box)
        own = np.vstack([known.motion(frame.index), [0, 0, 1]])
        truth.append((np.column_stack([still + 0.5, np.ones(4)]) @ np.linalg.inv(own)[:2].T) - 0.5)
    found = track.connect(landmarks, boxes, max_gap=3)
    raw, smooth = track.squares(found, 0, 0), track.squares(found, 1.0, 2.0)
    side = align.side(still)
    assert np.abs(smooth - truth).mean() < 0.02 * side
    shake = [track.jitter(x - np.array(truth), found.shot) for x in (raw, smooth)]
    assert shake[1] < 0.4 * shake[0]
    for corners in smooth:  # still squares
        across, down = corners[3] - corners[0], corners[1] - corners[0]
        assert abs(across @ down) < 1e-6 * side**2
        assert np.hypot(*across) == pytest.approx(np.hypot(*down))


def test_the_face_of_another_person_is_not_taken():
    own, other = (images.read(file) for _, file in data.find('demo').files)
    face = find_faces(own)[0]
    identity = detect.identity(own, face.landmarks)
    gone = face._replace(box=(0.0, 0.0, 60.0, 60.0))  # so that it is searched anew
    assert track.follow(own, gone, identity).box == face.box
    assert track.follow(other, gone, identity) is None
    assert track.follow(other, gone) is not None


def test_smoothing_keeps_steady_motion_and_does_not_cross_cuts():
    line = np.arange(20.0)[:, None] * [1.0, -2.0]
    shot = np.repeat([0, -1, 1], [9, 2, 9])
    found = track.smooth(np.where(shot[:, None] == 1, 1000 - line, line), shot, 2.0)
    np.testing.assert_allclose(found[:9], line[:9], atol=1e-9)
    np.testing.assert_allclose(found[11:], 1000 - line[11:], atol=1e-9)
    assert np.isnan(found[9:11]).all()
    one = track.smooth(line[:1], [0], 2.0)
    np.testing.assert_array_equal(one, line[:1])
    # Slow and plain, away from the ends.
    noise = np.random.RandomState(0).randn(41, 1)
    weights = np.exp(-0.5 * (np.arange(-8, 9) / 2.0) ** 2)
    weights /= weights.sum()
    weights = 2 * np.pad(weights, 8) - np.convolve(weights, weights)
    expected = weights @ noise[4:37, 0]
    assert track.smooth(noise, np.zeros(41, int), 2.0)[20, 0] == pytest.approx(expected, rel=1e-6)


def test_short_gaps_are_interpolated_and_long_ones_left_out():
    points = np.arange(12.0)[:, None, None] + np.zeros([12, 68, 2])
    boxes = np.tile([0.0, 0, 50, 50], (12, 1))
    missing = [0, 3, 4, 7, 8, 9]
    points[missing] = boxes[missing] = np.nan
    found = track.connect(points, boxes, max_gap=2)
    assert found.shot.tolist() == [-1, 0, 0, 0, 0, 0, 0, -1, -1, -1, 1, 1]
    assert found.landmarks[[3, 4], 0, 0].tolist() == [3.0, 4.0]
    assert found.used.tolist() == [1, 2, 3, 4, 5, 6, 10, 11]
    boxes[2:] += 80  # elsewhere: a cut
    assert track.connect(points, boxes, max_gap=2).shot.tolist()[:4] == [-1, 0, 1, 1]
    boxes[5:] += 80  # elsewhere after a gap
    assert track.connect(points, boxes, max_gap=2).shot.tolist()[2:6] == [1, -1, -1, 2]
    assert track.overlap([0, 0, 2, 2], [1, 1, 3, 3]) == pytest.approx(1 / 7)


def test_anchors_interpolation_and_order():
    shot = np.array([0] * 6 + [1] * 3)
    rows = video_frames.anchors(shot, 4)
    assert rows.tolist() == [0, 4, 5, 6, 8]
    codes = rows[:, None, None] * np.ones([1, 2, 3], np.float32)
    found = video_frames.between(rows, codes, shot)
    np.testing.assert_allclose(found[:, 0, 0], np.arange(9))
    one = video_frames.anchors(shot, 0)
    assert one.tolist() == [3, 7]
    found = video_frames.between(one, codes[1:3], shot)
    assert found[:, 0, 0].tolist() == [4.0] * 6 + [5.0] * 3
    assert sorted(video_frames.spread(10, 4)) == list(range(10))
    assert video_frames.spread(8, 4).tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert video_frames.spread(5, 0).tolist() == list(range(5))


def test_frames_start_between_their_anchors(tmp_path, monkeypatch):
    """What the projections are given, without running them."""
    calls, n = [], 6
    targets = data.Targets(
        [f'{i:06}' for i in range(n)], np.zeros([n, 8, 8, 3], np.uint8), [{}] * n, []
    )
    options = settings.changed(InvertVideo(), temporal={'anchor_every': 4, 'refine_steps': 3})
    session = types.SimpleNamespace(
        path=tmp_path, targets=targets, settings=options, generator=None, weights=None,
        log=lambda *_, **__: None, runner=Runner(()), shared_arguments={'seed': 5},
    )  # fmt: skip

    def project(generator, weights, targets, *, settings, start, seed, runner):
        calls.append((targets.names, settings, start, runner.folder.name))
        moved = np.arange(float(len(targets))) if start is None else start[:, 0, 0] + 10
        return types.SimpleNamespace(w=np.float32(moved)[:, None, None] * np.ones([1, 1, 2]))

    monkeypatch.setattr(main, 'project', project)
    shot = np.zeros(n, int)
    frames = video_frames.Frames(None, track.Track(None, shot == 0, shot), None, None)
    found = main.find_pivots(session, frames)
    (names, searching, start, folder), (every, refining, interpolated, _) = calls
    assert names == ['000000', '000004', '000005'] and folder == 'anchors' and start is None
    assert searching == options.pivot and every == targets.names
    expected = [0, 0.25, 0.5, 0.75, 1, 2]
    np.testing.assert_allclose(interpolated[:, 0, 0], expected)
    assert (refining.num_steps, refining.initial_noise_factor) == (3, 0.0)
    smooth = track.smooth(np.add(expected, 10)[:, None], shot, options.temporal.pivot_sigma)
    np.testing.assert_allclose(found[:, 0, 0], smooth[:, 0], rtol=1e-6)
    calls.clear()
    np.testing.assert_array_equal(main.find_pivots(session, frames), found)  # from the folder
    assert not calls


# --- Edits in time ---


def test_strengths_at_times(tmp_path):
    np.save(tmp_path / 'd.npy', np.eye(4, dtype=np.float32)[1])
    spec = f'{tmp_path / "d.npy"}=-1@1s, 2 @ 3s,0@4.5s'
    (timed,) = edits.parse_timed([spec], '')
    assert timed.name == 'd=-1@1s,2@3s,0@4.5s'
    strengths = [timed.at(t).steps[0][1] for t in (0, 1, 2, 3, 4.5, 9)]
    assert strengths == pytest.approx([-1, -1, 0.5, 2, 0, 0])
    w = edits.apply(np.zeros([1, 1, 4], np.float32), timed.at(2), 3)
    np.testing.assert_allclose(w[0, 0], [0, 0.5, 0, 0])
    both, low, high = edits.parse_timed(['yaw=2,smile=0@0s,1@1s', 'smile=-1/1'])
    assert both.name == 'yaw=2,smile=0@0s,1@1s'
    assert both.at(0.5).parts == (('yaw', 2.0), ('smile', 0.5))
    assert (low.name, high.at(7).parts) == ('smile=-1', (('smile', 1.0),))
    for wrong, message in (
        ('smile=0@0s,1.2@2', 'is not a strength at a time'),
        ('smile=0@0s,1', 'needs a time for each'),
        ('smile=0@2s,1@1s', 'later than the one before'),
        ('smile=0@0s,1/2@2s', 'is not a strength at a time'),
        ('smlie=0@0s,1@2s', "no direction 'smlie'. Did you mean 'smile'"),
        ('yaw=10deg', 'of a video give the strength itself'),
        ('smile=1@mouth', 'is not a strength at a time'),
    ):
        with pytest.raises(edits.EditError, match=message):
            edits.parse_timed([wrong])


# --- Flicker ---


def test_flicker_is_what_the_sources_motion_does_not_explain(clip):
    frames = np.stack(
        [np.asarray(f.picture.crop((120, 40, 376, 296))) for f in video.frames(clip)][:3]
    )
    noise = np.random.RandomState(0).normal(0, 12, frames.shape)
    flickering = np.uint8(np.clip(frames + noise, 0, 255))
    dimmed = np.uint8(frames * 0.7)  # an edit that moves along
    small = {
        name: video_flicker.small(own)
        for name, own in (('source', frames), ('flickering', flickering), ('dimmed', dimmed))
    }
    motion = video_flicker.flow(*small['source'][:2])
    errors = {name: video_flicker.warp_rmse(*own[:2], *motion) for name, own in small.items()}
    still = np.sqrt(np.mean((small['source'][0] - small['source'][1]) ** 2))
    assert errors['source'] < 0.35 * still
    assert errors['dimmed'] < errors['source'] < 0.7 * errors['flickering']
    nothing = video_flicker.warp_rmse(*small['source'][:2], motion[0], np.zeros_like(motion[1]))
    assert np.isnan(nothing)
    # The known motion of the middle of the picture, in pixels of the reduced one.
    own, following = (np.vstack([known.motion(i), [0, 0, 1]]) for i in (0, 1))
    middle = np.array([248.5, 168.5, 1])
    moved = (np.linalg.inv(following) @ own @ middle - middle)[:2] / 2
    assert motion[0][::-1, 64, 64] == pytest.approx(moved, abs=0.4)


# --- Whole runs ---


def config_of(source, tmp_path, **changes):
    config = load_config('pti_video')
    np.save(tmp_path / 'd.npy', np.ones(16, np.float32))
    config.temporal.anchor_every = 1  # one program to compile less
    config.encode.crf = 0  # lossless
    # Of w and of styles.
    edit = f'{tmp_path / "d.npy"}=0@0s,2@0.2s,style:b16_conv2/3=0@0s,4@0.2s'
    config.data.video, config.edits = str(source), (edit,)
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope='module')
def finished(clip, tmp_path_factory):
    """(config, work folder, log) of a run on a folder of frames, of which one has no face."""
    folder = tmp_path_factory.mktemp('frames')
    for frame in video.frames(clip):
        picture = PIL.Image.new('RGB', clip.size) if frame.index == 2 else frame.picture
        if frame.index < 6:
            images.save(folder / f'{frame.index}.png', picture)
    work, lines = tmp_path_factory.mktemp('run') / 'work', []
    config = config_of(folder, work.parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video_frames, 'CHUNK', 4)
        patch.setattr(main.video_render, 'CHUNK', 4)
        main.run(config, work, log=lambda text, **_: lines.append(text))
    return config, work, lines


@pytest.mark.long
def test_a_run_writes_videos_numbers_and_a_page(finished):
    config, work, lines = finished
    assert any('1 without a face, of which 1 are interpolated' in line for line in lines)
    result = json.loads((work / 'metrics.json').read_text())
    assert result['track']['frames'] == 6 and result['track']['interpolated'] == 1
    assert result['videos'] == {name: f'videos/{name}.mp4' for name in result['edits']}
    name = 'd=0@0s,2@0.2s,style:b16_conv2/3=0@0s,4@0.2s'
    assert list(result['edits'].values()) == ['tuned', name] and result['pairs'] == 5
    for name in ('source', *result['edits']):
        assert all(value > 0 for value in result['flicker'][name].values())
    rows = [json.loads(line) for line in (work / 'frames.jsonl').read_text().splitlines()]
    assert [row['frame'] for row in rows] == list(range(6))
    assert rows[0]['tuned/lpips_alex'] is None and rows[1]['tuned/lpips_alex'] > 0
    pictures = {}
    for name, file in result['videos'].items():
        found = video.open_clip(work / file)
        assert found.size == known.SIZE and found.rate == 25
        pictures[name] = [np.asarray(f.picture, int) for f in video.frames(found)]
        assert len(pictures[name]) == 6
    tuned, edited = pictures.values()
    changes = [np.abs(a - b).mean() for a, b in zip(tuned, edited, strict=True)]
    assert changes[0] == 0 < changes[1] < changes[5] and changes[5] > 2 * changes[1]
    corner = np.s_[:40, :40]  # far from the face: the frame itself
    source = np.asarray(images.read(f'{config.data.video}/5.png'), int)
    assert np.abs(edited[5][corner] - source[corner]).mean() < 2
    page = (work / 'report.html').read_text()
    assert 'Warping error' in page and page.count('data:image/jpeg') == 18
    generator, weights = jaxinv.load_generator(work)
    assert generator.spec.resolution == 32


@pytest.mark.long
def test_an_interrupted_run_goes_on_to_the_same_videos(finished, tmp_path, monkeypatch):
    config, work, _ = finished
    again, calls = tmp_path / 'again', []
    monkeypatch.setattr(video_frames, 'CHUNK', 4)
    monkeypatch.setattr(main.video_render, 'CHUNK', 4)

    def stop():
        calls.append(1)
        if len(calls) in (3, 5):  # after half of the tuning, and after half of the rendering
            raise distributed.Preempted

    monkeypatch.setattr(distributed, 'raise_if_preempted', stop)
    for _ in range(2):
        with pytest.raises(distributed.Preempted):
            main.run(config, again, log=lambda *_, **__: None)
    main.run(config, again, log=lambda *_, **__: None)
    assert len(calls) == 6
    for name in json.loads((work / 'metrics.json').read_text())['videos'].values():
        assert (work / name).read_bytes() == (again / name).read_bytes()
    a, b = (json.loads((path / 'metrics.json').read_text()) for path in (work, again))
    assert a['flicker'] == b['flicker'] and a['mean'] == b['mean']


@pytest.mark.long
def test_aligned_faces_alone_from_given_pivots(finished, tmp_path):
    config, work, _ = finished
    pivots, aligned = str(work / 'pivots.npz'), tmp_path / 'aligned'
    changes = {'start': pivots, 'temporal.pivot_sigma': 0.0, 'tune.num_steps': 0, 'paste': False}
    own = config_of(config.data.video, tmp_path, **changes)
    main.run(own, aligned, log=lambda *_, **__: None)
    np.testing.assert_array_equal(np.load(pivots)['w'], np.load(aligned / 'pivots.npz')['w'])
    found = video.open_clip(aligned / 'videos' / 'tuned.mp4')
    generator, weights = jaxinv.load_generator('tiny', 32)
    images_of = jaxinv.render(generator, weights, np.load(pivots)['w'])
    expected = np.clip((images_of + 1) * 127.5, 0, 255)
    shown = np.stack([np.asarray(frame.picture, float) for frame in video.frames(found)])
    luma = [x @ [0.299, 0.587, 0.114] for x in (shown, expected)]  # colours have half the size
    assert np.corrcoef(luma[0].ravel(), luma[1].ravel())[0, 1] > 0.98
    assert np.abs(luma[0] - luma[1]).mean() < 4


def test_runs_that_are_impossible_raise_a_sentence(clip, tmp_path):
    for changes, message in (
        ({'data.video': ''}, 'data.video is empty'),
        ({'group': 2}, 'group is 2'),
        ({'tune.shared': False}, 'one generator is tuned for all frames'),
    ):
        with pytest.raises(JaxinvError, match=message):
            main.run(config_of(clip.path, tmp_path, **changes), tmp_path / 'work')
    blank = tmp_path / 'blank'
    images.save(blank / '0.png', PIL.Image.new('RGB', (64, 64)))
    with pytest.raises(NoImages, match='No face was found in any frame of blank'):
        main.run(config_of(blank, tmp_path), tmp_path / 'work', log=lambda *_, **__: None)
    assert detect.find_near(PIL.Image.new('RGB', (64, 64)), (10, 10, 50, 50)) == []
