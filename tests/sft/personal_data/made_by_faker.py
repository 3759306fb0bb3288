"""Marked texts whose values come from Faker, which shares nothing with the recognizers.

    python tests/sft/personal_data/made_by_faker.py

prints precision and recall for each kind, as docs/personal-data.md has them.
"""

from __future__ import annotations

import random

from faker import Faker

ENGLISH = {
    "email": ("Write to {} today.", "{} is my address.", "From: {}", "ask {}, please", "<{}>"),
    "phone": (
        "Call me at {}.",
        "My phone number is {}",
        "Tel: {}, evenings only",
        "You can reach her on {} until six.",
        "Her mobile ({}) is off.",
    ),
    "card": ("I paid with card {}.", "Card no. {} was declined", "charge {} please", "Visa: {}"),
    "iban": ("Transfer it to {}.", "IBAN: {}", "account {}, reference 17", "({})"),
    "ip": ("The host {} is down.", "from {} at 10:15:00", "ssh root@{} failed", "IP: {}."),
    "us_ssn": ("SSN: {}.", "My social security number is {}", "born 1971, {}, Ohio"),
    "name": ("I met {} yesterday.", "{} wrote this.", "Signed: {}", "Ask {}, not me."),
}
CHINESE = {
    "email": ("邮箱{}，请查收。", "请发到{}。", "我的邮件地址是{}", "（{}）"),
    "phone": ("手机{}，随时联系。", "我的电话是{}。", "请拨打{}", "联系方式：{}（微信同号）"),
    "cn_id": ("身份证号{}。", "身份证：{}，请核对", "他的证件号码是{}", "{}这个号码对吗？"),
    "card": ("卡号{}已挂失。", "信用卡：{}", "请用{}付款。"),
    "ip": ("服务器{}无法访问。", "登录地址：{}", "来自{}的请求"),
    "name": ("我是{}。", "{}昨天来过。", "联系人：{}，经理", "请问{}在吗？"),
}
CLEAN = (
    "The order {:05d}-{:04d} has {} items.",
    "In {} there were {} million, and {} more came.",
    "It costs ${}.{:02d}, not ${}.",
    "Chapter {}, pages {} to {}.",
    "{} plus {} is not {}.",
    "订单{}共{}件，合计{}元。",
    "{}年第{}号文件，第{}页。",
    "版本{}.{}.{}已经发布。",
)


def lines(count: int, seed: int) -> tuple[list[tuple[str, set[tuple[int, int, str]]]], list[str]]:
    """So many lines with one marked value each, and the names among them."""
    chance = random.Random(seed)
    english, chinese = Faker("en_US"), Faker("zh_CN")
    for number, fake in enumerate((english, chinese)):
        fake.seed_instance(seed + number)

    def address() -> str:
        return chance.choice((english.ipv4_public, english.ipv6))()

    # Dotted, spaced and plain ways of writing, as people have them.
    makers = {
        "email": english.email,
        "phone": english.phone_number,
        "card": english.credit_card_number,
        "iban": english.iban,
        "ip": address,
        "us_ssn": english.ssn,
        "name": english.name_nonbinary,
    }
    chinese_makers = makers | {
        "email": chinese.email,
        "phone": chinese.phone_number,
        "cn_id": chinese.ssn,
        "name": chinese.name,
    }
    made, names = [], []
    for number in range(count):
        templates, ours = (CHINESE, chinese_makers) if number % 2 else (ENGLISH, makers)
        kind = chance.choice(list(templates))
        value = ours[kind]()
        if kind == "card" and len(value) == 16 and chance.random() < 0.5:
            value = chance.choice(" -").join(value[at : at + 4] for at in range(0, 16, 4))
        if kind == "name":
            names.append(value)
        before, _, after = chance.choice(templates[kind]).partition("{}")
        made.append((before + value + after, {(len(before), len(before + value), kind)}))
    return made, names


def clean_rows(count: int, seed: int) -> list[str]:
    """Rows without personal data, full of numbers."""
    chance, fake = random.Random(seed), Faker(["en_US", "zh_CN"])
    Faker.seed(seed)
    rows = []
    for _ in range(count):
        template = chance.choice(CLEAN)
        numbers = [chance.randrange(10 ** chance.randint(1, 6)) for _ in range(3)]
        rows.append(f"{fake.sentence()} {template.format(*numbers)} {fake.sentence()}")
    return rows


if __name__ == "__main__":
    from marked import by_hand, precision_and_recall

    from sft.personal_data.config import PersonalDataConfig
    from sft.personal_data.mask import Masker
    from sft.personal_data.names import NameList

    for title, (made, names) in {
        "by hand": (by_hand(), []),
        **{f"Faker, seed {seed}": lines(1000, seed) for seed in range(3)},
    }.items():
        masker = Masker.of(PersonalDataConfig())
        masker.names = NameList(names) if names else None
        precision, recall, wrong = precision_and_recall(masker, made)
        print(f"{title}: {len(made)} lines, precision {precision:.3f}, recall {recall:.3f}")
        for entry in wrong[:25]:
            print("   ", *entry)
    rows = clean_rows(1000, 0)
    masker = Masker.of(PersonalDataConfig())
    masked = [row for row in rows if masker.find(row)]
    for row in masked:
        print("   ", masker.find(row), row)
    print(f"clean rows with a mask: {len(masked)} of {len(rows)}")
