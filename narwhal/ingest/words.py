# ruff: noqa: RUF001
"""Words that say nothing of what a text is about, and words that tell what kind it is."""

from __future__ import annotations

_LISTS = (
    # English
    "a about above after again against all also am an and any are as at be because been "
    "before being between both but by can cannot could did do does doing down during each "
    "either else ever every few for from further get had has have having he her here hers "
    "him his how however i if in into is it its itself just let like may me might more most "
    "much must my no nor not now of off on once one only or other our out over own per same "
    "shall she should since so some such than that the their them then there these they this "
    "those through thus to too two under until up upon us use used using very was we were "
    "what when where which while who whom why will with within without would yes yet you "
    "your",
    # German
    "aber alle allem allen aller alles als also am an auch auf aus bei beim bin bis bist da "
    "damit dann das dass dem den der des die dies diese diesem diesen dieser dieses doch "
    "dort du durch ein eine einem einen einer eines er es für hat hatte haben hier ich ihr "
    "ihre im in ist ja jede jeder kann kein keine können mehr mein mit muss nach nicht noch "
    "nun nur ob oder ohne sein seine sich sie sind so soll sowie über um und uns unter vom "
    "von vor war waren was weil wenn werden wer wie wir wird wo wurde wurden zu zum zur zwei "
    "zwischen",
    # French
    "à afin ainsi alors au aucun aussi autre aux avant avec avoir c ce ceci cela ces cet "
    "cette ceux chaque chez comme comment d dans de depuis des deux donc du elle elles en "
    "encore entre est et été être eu fait faire il ils j je l la le les leur leurs lors lui "
    "m ma mais me même mes moins mon n ne ni nos notre nous on ont ou où par pas pendant "
    "peut plus pour qu quand que qui s sa sans se ses si son sont sous sur t ta tout toute "
    "tous très tu un une vers vos votre vous y",
    # Spanish, Portuguese, Italian
    "al algo ante aunque cada como con contra cual cuando de del desde donde dos e el ella "
    "ellos en entre era es esa ese esta este esto están fue ha hasta hay la las le les lo "
    "los más me mi muy no nos o otra otro para pero por porque que quien se ser si sin sobre "
    "son su sus también te tiene todo todos tu un una uno unos y ya ao aos as até com da das "
    "dos ela ele em foi isso já mais mas na nas nem não no nos num numa os ou pela pelo "
    "pelos qual são sem seu sua suas também tem um uma você ad agli ai alla alle anche che "
    "chi ci come cui da dal dalla degli dei del della delle di e ed è gli ha hanno il io la "
    "le lo loro ma mi nel nella nelle non o per perché più quale quando questa questo se si "
    "sono sua sul sulla suo tra un una uno",
    # Dutch, Danish, Norwegian, Swedish
    "aan als bij dan dat de deze die dit door een en er ook geen haar had heeft hem het hij "
    "hoe ik in is ja je kan maar me meer met mijn naar niet nog nu of om omdat onder ons ook "
    "op over te tot uit van veel voor was wat we werd wie wij wordt ze zich zijn zij zo "
    "zonder af at av blev blir både da de dem den der deres det dette dig disse du eller en "
    "er et ett för fra från for ha han har hvad hvis hvor i ikke inte jag jeg kan kun man "
    "med meget men mig mot när nu og och også om op på sig sin som så till til under upp ut "
    "var vara ved vi vid være åt är",
    # Polish, Czech
    "aby ale bez być był była było by co czy dla do gdy gdzie i ich ja jak jako jest już lub "
    "ma może na nad nie niż o od oraz po pod przez przy się są ta tak tego ten to tylko u w "
    "we z za ze że a být byl byla bylo jeho její jsou když nebo pro při s se si tak také ten "
    "v však za že",
    # Russian, Ukrainian
    "а без более бы был была были было быть в вам вас весь во вот все всё вы где да даже для "
    "до его ее её если есть ещё же за здесь и из или им их к как ко когда кто ли между меня "
    "мне может мы на над нас не него нет ни но ну о об один он она они оно от по под при с "
    "свой себя со так также там то того только тот у уже чем что чтобы эта эти это этот я "
    "але було від він вона вони для до є з за і із й його на не по про та так те ти у це цей "
    "що як який",
    # Turkish
    "ama bir bu çok da daha de değil diye en gibi göre hem her için ile ise kadar ki mi ne "
    "olan olarak oldu sonra şu ve veya ya",
    # Arabic, Persian
    "أن أو إذا إلى إن التي الذي الذين الى ان انه او اي بعد بين تم ثم حتى حيث ذلك عن على عند "
    "غير في قبل قد كان كانت كل كما لا لكن لم لن ليس ما مع من منذ هذا هذه هل هم هو هي و يا "
    "این آن از است با باید برای بر به بود تا در را شد شده که ما می نیز ها های هر هم و یا یک",
    # Hebrew, Hindi, Greek
    "אבל או אחרי אל אם אני את אתה בין גם הוא היא הם זה זו יש כי כל כמו לא לפני מה מי עד על "
    "עם של और का की के को से में है हैं पर यह वह था थी थे कि जो ने तो भी एक नहीं हो कर इस उस "
    "αλλά από αυτό για δεν είναι η ή και κατά με μια να ο οι όπως όταν που προς σε στα στη "
    "στην στις στο στον τα τη την της τις το τον του τους των ως",
    # Korean
    "것 그 그리고 그러나 등 및 때문 또는 또한 를 수 에 에서 와 위해 "
    "은 을 의 이 있는 있다 있습니다 하는 하다 "
    "합니다",
    # Indonesian, Vietnamese
    "ada adalah akan atau bagi bahwa dalam dan dapat dari dengan di harus ini itu juga "
    "karena ke kepada oleh pada saya sebagai sudah telah tidak untuk yang bị các cho chỉ có "
    "của cũng đã để đến được khi không là làm một này nhiều những như ở phải ra rất sẽ sự "
    "tại theo thì trong từ và với về",
)
FUNCTION_WORDS = frozenset(word for words in _LISTS for word in words.split())
# Chinese, Japanese and Thai put no spaces: no phrase has one of these.
FUNCTION_CHARACTERS = frozenset(
    "的了是在和有我你他她它们們这這那不也就都而及与與或但被把从從到为為对對于於以之其所将將会會能可"
    "吗呢吧啊么麼很更最再又还還没沒要上下中内个個各每年月日一二三四五六七八九十"
)
# Of each kind, words that a text of it begins with or is full of, in several languages.
CATEGORIES: dict[str, tuple[str, ...]] = {
    "invoice": (
        "invoice", "amount due", "bill to", "rechnung", "rechnungsnummer", "facture", "factura",
        "fattura", "factuur", "счёт-фактура", "счет-фактура", "发票", "請求書", "فاتورة",
    ),
    "receipt": ("receipt", "quittung", "kassenbon", "reçu", "recibo", "ricevuta", "收据", "領収書"),
    "contract": (
        "agreement", "contract", "hereinafter", "the parties", "vertrag", "vertragspartner",
        "contrat", "contrato", "contratto", "overeenkomst", "договор", "合同", "契約書", "عقد",
    ),
    "resume": (
        "curriculum vitae", "résumé", "work experience", "lebenslauf", "berufserfahrung",
        "expérience professionnelle", "experiencia laboral", "резюме", "简历", "履歴書",
    ),
    "minutes": (
        "minutes of", "attendees", "action items", "protokoll", "teilnehmer", "tagesordnung",
        "procès-verbal", "ordre du jour", "acta de", "会议纪要", "議事録",
    ),
    "report": (
        "report", "executive summary", "bericht", "zwischenbericht", "rapport", "informe",
        "relazione", "отчёт", "отчет", "报告", "報告書", "تقرير",
    ),
    "letter": (
        "dear ", "yours sincerely", "kind regards", "sehr geehrte", "mit freundlichen grüßen",
        "cordialement", "estimado", "atentamente", "уважаемый", "尊敬的", "拝啓",
    ),
    "manual": (
        "user manual", "user guide", "handbook", "instructions", "bedienungsanleitung", "handbuch",
        "mode d'emploi", "manual de", "руководство", "说明书", "取扱説明書",
    ),
    "research paper": ("abstract", "introduction", "references", "doi:", "arxiv", "et al.", "摘要"),
    "form": ("please fill in", "date of birth", "formular", "formulaire", "formulario", "申请表"),
    "policy": ("privacy policy", "terms of service", "datenschutzerklärung"),
    "recipe": ("ingredients", "tablespoon", "zutaten", "ingrédients", "配料", "材料"),
}  # fmt: skip
