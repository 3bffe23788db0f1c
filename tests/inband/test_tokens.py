"""The estimate against the real tokenizer, and against how a text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from splitting import every_split

from k2think.inband.tokens import BLOCK, MAX_BLOCKS, TokenCounter, estimate_tokens

# Written for this test. The counts are those of Qwen2.5's vocabulary (`qwen.tiktoken`, as DashScope's SDK has it) with
# its own splitting pattern in tiktoken, without special tokens.
SAMPLES = [
    pytest.param(
        156,
        (
            "Okay, so the user wants to know whether 221 is a prime number. Let me check. I'll try "
            "the small primes first: 2 doesn't work because it is odd, 3 doesn't because the digits "
            "add up to 5, and 5 is out as well. What about 7? Seven times thirty-one is 217, so "
            "no. 11 times 20 is 220, no. Hmm, wait, 13 times 17 is 221! Let me double-check: 13 "
            "* 17 = 130 + 91 = 221. Yes. So it isn't prime, and I should explain how I found the "
            "factors."
        ),
        id="thinking",
    ),
    pytest.param(
        82,
        (
            "The harbour wakes slowly. Before the first ferry leaves, fishermen spread their nets "
            "along the wall and argue about the weather, while a woman in a yellow coat sells coffee "
            "from the back of a van. By eight o'clock the tourists have arrived, and the gulls, "
            "which know their business, circle above the tables outside the bakery. Nobody hurries; "
            "there is nothing here that could not wait until tomorrow."
        ),
        id="English",
    ),
    pytest.param(
        143,
        (
            "今天早上我们一起去了城外的小山。天气很好，空气里有青草的味道，路边的树叶已经开始变黄"
            "。爷爷走得很慢，但是一直没有停下来休息。他说，年轻的时候他每个星期都要走这条路去学校"
            "，那时候没有公共汽车，也没有现在这样宽的马路。到了山顶以后，我们坐在石头上喝茶，看着"
            "远处的城市，谁也没有说话。我想，等我老了，也要带着我的孩子到这里来，告诉他们这些故事"
            "，让他们知道从前的生活是什么样子。回家的路上下了一点小雨，不过大家都很高兴。晚上妈妈"
            "做了很多菜，我们一边吃饭一边讨论明年春天的计划，一直聊到很晚才睡觉。"
        ),
        id="Chinese",
    ),
    pytest.param(
        174,
        (
            "from collections import Counter\n"
            "\n"
            "\n"
            "class WordIndex:\n"
            '    """Counts the words of many documents and remembers where each one stands."""\n'
            "\n"
            "    def __init__(self, min_length: int = 3) -> None:\n"
            "        self.min_length = min_length\n"
            "        self._places: dict[str, list[tuple[int, int]]] = {}\n"
            "        self._totals = Counter()\n"
            "\n"
            "    def add(self, number: int, text: str) -> None:\n"
            "        for position, word in enumerate(text.lower().split()):\n"
            "            if len(word) >= self.min_length:\n"
            "                self._places.setdefault(word, []).append((number, position))\n"
            "                self._totals[word] += 1\n"
            "\n"
            "    def most_common(self, n=10):\n"
            "        return [(word, count) for word, count in self._totals.most_common(n) if count "
            "> 1]\n"
        ),
        id="Python",
    ),
    pytest.param(
        179,
        (
            "{\n"
            '  "order": {"id": 48213, "status": "shipped", "created_at": "2024-05-17T09:24:31Z"},\n'
            '  "customer": {"name": "Ana Lima", "email": "ana@example.com", "newsletter": '
            "false},\n"
            '  "items": [\n'
            '    {"sku": "TEA-0042", "title": "Green tea, 100 g", "quantity": 2, "price": '
            "7.9},\n"
            '    {"sku": "CUP-0007", "title": "Porcelain cup", "quantity": 1, "price": '
            "18.5}\n"
            "  ],\n"
            '  "total": 34.3,\n'
            '  "currency": "EUR",\n'
            '  "notes": null\n'
            "}"
        ),
        id="JSON",
    ),
    pytest.param(
        176,
        (
            "<!DOCTYPE html>\n"
            '<html lang="en">\n'
            "<head>\n"
            '  <meta charset="utf-8">\n'
            "  <title>Opening hours</title>\n"
            '  <link rel="stylesheet" href="/static/site.css">\n'
            "</head>\n"
            '<body class="page">\n'
            '  <nav><a href="/">Home</a> | <a href="/about.html">About us</a></nav>\n'
            '  <h1 id="hours">Opening hours</h1>\n'
            "  <ul>\n"
            "    <li>Monday to Friday: <strong>9:00</strong> to <strong>18:30</strong></li>\n"
            "    <li>Saturday: closed</li>\n"
            "  </ul>\n"
            '  <p>Please <a href="mailto:shop@example.com">write to us</a> if you cannot come '
            "at these times.</p>\n"
            "</body>\n"
            "</html>"
        ),
        id="HTML",
    ),
    pytest.param(
        219,
        (
            "Let $f(x) = x^3 - 3x + 1$. Since $f'(x) = 3x^2 - 3 = 3(x-1)(x+1)$, the critical points "
            "are $x = \\pm 1$, with $f(-1) = 3 > 0$ and $f(1) = -1 < 0$. By the intermediate value "
            "theorem there are three real roots. Substituting $x = 2\\cos\\theta$ gives\n"
            "\\[\n"
            "8\\cos^3\\theta - 6\\cos\\theta + 1 = 2\\cos 3\\theta + 1 = 0,\n"
            "\\]\n"
            "so $\\cos 3\\theta = -\\frac{1}{2}$ and $\\theta = \\frac{2\\pi}{9} + \\frac{2k\\pi}{3}$ "
            "for $k = 0, 1, 2$. Therefore the largest root is $\\boxed{2\\cos\\frac{2\\pi}{9}}$."
        ),
        id="mathematics",
    ),
    pytest.param(
        149,
        (
            "# How to brew coffee\n"
            "\n"
            "You need **three things**: fresh beans, clean water and a little patience.\n"
            "\n"
            "1. Grind about *18 grams* of beans, not too fine.\n"
            "2. Heat the water to 94 °C and wet the filter.\n"
            "3. Pour slowly, in circles, for `2:30` minutes.\n"
            "\n"
            "| Beans | Grind | Time |\n"
            "|-------|-------|------|\n"
            "| light | fine | 3:00 |\n"
            "| dark | coarse | 2:15 |\n"
            "\n"
            "> Old beans cannot be saved. See [the guide](https://example.com/guide) for more.\n"
            "\n"
            "```bash\n"
            "brew --beans 18 --water 300\n"
            "```\n"
        ),
        id="Markdown",
    ),
    pytest.param(
        131,
        (
            "你好！你的问题其实很简单：Python 里的 list 是可变的，而 tuple 是不可变的。For example, "
            "if you write `a = [1, 2, 3]` and then call `a.append(4)`, the list itself changes；"
            "但是如果 `t = (1, 2, 3)`，就没有 append 这个方法。\n"
            "\n"
            "So when should you use a tuple? 一般来说，当数据不应该被修改的时候，比如坐标 (x, y) "
            "或者字典的 key，就用 tuple。Otherwise a list is fine, 因为它更灵活，也更容易理解。"
        ),
        id="English and Chinese",
    ),
    pytest.param(
        134,
        (
            "先週の土曜日に、友達と一緒に京都へ行きました。朝早く新幹線に乗って、十時ごろ駅に着き"
            "ました。天気がよかったので、まず川のそばをゆっくり歩いて、それから古いお寺を見に行き"
            "ました。庭には赤や黄色の葉がたくさんあって、とてもきれいでした。昼ご飯は小さな店でう"
            "どんを食べました。店の人は親切で、町の歴史についていろいろ話してくれました。夕方にな"
            "ると人が多くなったので、私たちはお茶を飲みながら少し休みました。来年の春にもう一度行"
            "きたいと思っています。"
        ),
        id="Japanese",
    ),
    pytest.param(
        152,
        (
            "어제는 오랜만에 가족과 함께 바다에 갔습니다. 아침에는 조금 추웠지만 오후가 되자 날씨"
            "가 따뜻해졌습니다. 아이들은 모래 위에서 뛰어놀고, 우리는 그늘에 앉아서 커피를 마셨습"
            "니다. 점심에는 작은 식당에서 생선 요리를 먹었는데 정말 맛있었습니다. 집에 돌아오는 "
            "길에 시장에 들러서 과일과 빵을 샀습니다. 다음 달에도 시간이 있으면 다시 가고 싶다고"
            " 모두가 말했습니다. 그날 찍은 사진은 거실에 걸어 두었습니다."
        ),
        id="Korean",
    ),
    pytest.param(
        126,
        (
            "Вчера вечером мы долго говорили о том, как изменился "
            "наш город за последние двадцать лет. Раньше на "
            "этой улице стояли старые деревянные дома, а теперь "
            "здесь построили большой магазин и новую школу. "
            "Бабушка сказала, что ей больше нравилось, когда "
            "всё было тихо, но дети рады, потому что рядом появился "
            "парк. Потом мы пили чай и смотрели фотографии, "
            "которые дедушка сделал ещё в молодости."
        ),
        id="Russian",
    ),
    pytest.param(
        111,
        (
            "في صباح يوم جميل ذهب أحمد مع والده إلى السوق القديم في وسط المدينة. كان السوق مليئا "
            "بالناس، وكانت رائحة الخبز والقهوة تملأ المكان. اشترى الأب بعض الفواكه والخضروات، ثم "
            "جلسا في مقهى صغير وشربا الشاي. تحدث الأب عن طفولته وعن البيوت التي كانت هنا قبل سنوات "
            "طويلة. عندما عادا إلى البيت كانت الأم قد أعدت طعام الغداء للجميع."
        ),
        id="Arabic",
    ),
]


@pytest.mark.parametrize(("tokens", "text"), SAMPLES)
def test_ordinary_text_is_estimated_within_15_percent(tokens: int, text: str) -> None:
    assert len(text) >= 200
    assert estimate_tokens(text) == pytest.approx(tokens, rel=0.15)


def test_an_empty_text_has_no_tokens() -> None:
    assert estimate_tokens("") == 0
    counter = TokenCounter()
    counter.feed("")
    assert counter.total == 0


ODD = st.text() | st.text("a=. \n\t", max_size=400) | st.builds(str.__mul__, st.text(max_size=3), st.integers(0, 3000))


@settings(deadline=None)  # a busy machine is no fault
@given(ODD)
def test_any_other_text_has_at_least_one_and_not_many_times_its_bytes(text: str) -> None:
    tokens = estimate_tokens(text)
    assert bool(text) == bool(tokens)
    assert tokens <= 1 + 5 * len(text.encode())


def test_half_a_surrogate_pair_is_no_error() -> None:
    assert estimate_tokens("\ud83d") >= 1


@pytest.mark.parametrize(("tokens", "text"), SAMPLES)
def test_a_short_text_counts_the_same_however_it_is_cut(tokens: int, text: str) -> None:
    for pieces in every_split(text[:120]):
        counter = TokenCounter()
        for piece in pieces:
            counter.feed(piece)
        assert counter.total == estimate_tokens(text[:120])


@pytest.mark.parametrize(("tokens", "text"), SAMPLES)
@pytest.mark.parametrize("size", [1, 7, 100, BLOCK - 1, BLOCK, BLOCK + 1, 10**6])
def test_a_long_text_counts_nearly_the_same_however_it_is_cut(tokens: int, text: str, size: int) -> None:
    text *= 20
    counter = TokenCounter()
    for start in range(0, len(text), size):
        counter.feed(text[start : start + size])
    assert counter.total == pytest.approx(estimate_tokens(text), rel=0.01)


def test_asking_in_between_changes_little() -> None:
    counter = TokenCounter()
    for piece in ["Some words ", "and then some more ", "of them."]:
        counter.feed(piece)
        assert counter.total > 0
    assert counter.total == pytest.approx(estimate_tokens("Some words and then some more of them."), abs=2)


def test_what_was_counted_is_not_kept() -> None:
    counter = TokenCounter()
    for _ in range(10_000):
        counter.feed("word ")
        assert len("".join(counter._pieces)) < BLOCK
    assert counter.total == pytest.approx(10_000, rel=0.15)


@pytest.mark.parametrize(
    "filler", ["The quick brown fox jumps over the lazy dog. ", "快速的棕色狐狸跳过懒狗。", "x = f(y[3], z) + 17\n"]
)
def test_a_long_text_is_estimated_by_samples_of_it(filler: str) -> None:
    block = filler * (BLOCK // len(filler))
    long = block * (4 * MAX_BLOCKS)
    assert estimate_tokens(long) == pytest.approx(4 * MAX_BLOCKS * estimate_tokens(block), rel=0.02)
    mixed = long + "plain words again and again " * (len(long) // 28)
    assert estimate_tokens(mixed) == pytest.approx(
        estimate_tokens(long) + estimate_tokens(mixed[len(long) :]), rel=0.05
    )
